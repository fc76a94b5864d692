"""Asks models for the answers that a verdict or a comparison compares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import InvalidRequest, TunesmithError
from core.inference.answer import collect
from core.inference.endpoints import Engine, events_of
from core.inference.targets import Target
from core.spec.engine_calls import CLASSIFY
from core.spec.held_out import Question
from core.spec.ids import ProjectId
from core.spec.verdict import Answer
from core.verdict.asking import (
    classification_request,
    generation_request,
    labelled,
    with_all_room,
    written,
)
from worker.answering.background import Background


@dataclass(frozen=True)
class Asking:
    """Asks models one question each, inside `during` of the background."""

    background: Background
    project: ProjectId
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template. The base has no bundle that would say them."""

    async def ask(self, target: Target, question: Question) -> Answer:
        """Return the answer of a model, or why it gave none to this question."""
        try:
            return await self.background.ask(
                target, lambda engine: self._asked(engine, target, question)
            )
        except TunesmithError as error:
            return Answer(error=error.message)

    async def _asked(self, engine: Engine, target: Target, question: Question) -> Answer:
        if question.labels is not None:
            asked = classification_request(question, target, self.project)
            return labelled(await engine.ask(CLASSIFY, asked), question.several_labels)
        request = generation_request(question, target, self.project, dict(self.template_kwargs))
        try:
            return written(await collect(events_of(engine, [request]), [request]))
        except InvalidRequest as error:
            if error.code != "context_length_exceeded":
                raise
        # fewer tokens than the limit fit after the prompt, if it fits itself
        request = with_all_room(request)
        return written(await collect(events_of(engine, [request]), [request]))
