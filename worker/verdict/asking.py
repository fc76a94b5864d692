"""Asks models through engines for the answers that a verdict compares."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from core.errors import InvalidRequest, TunesmithError, Unavailable
from core.inference.answer import collect
from core.inference.endpoints import Engine
from core.inference.targets import Target
from core.spec.engine_calls import CLASSIFY
from core.spec.engine_protocol import CRASHED, FAILED, EngineBroke, kind_of
from core.spec.generation import AnswerEvent, GenerationRequest
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

AT_ONCE = 32
"""Requests in flight. They are in the background of the engine, so live ones do not wait."""
UNAVAILABLE_SECONDS = 30.0
PAUSE_SECONDS = 1.0
MAX_FAILURES = 3
"""Of engines during one question."""


def may_be_the_cause(error: TunesmithError) -> bool:
    """Return whether the request may be why the engine failed."""
    return isinstance(error, EngineBroke) or kind_of(error) in (FAILED, CRASHED)


@dataclass
class Asking:
    """Asks models one question each. Create it in the event loop that uses it."""

    engine: Engine
    """Usually `AnyEngine(database, key)`."""
    project: ProjectId
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Variables of the chat template. The base has no bundle that would say them."""
    patience_seconds: float = UNAVAILABLE_SECONDS
    """After this long without any answer, `ask` raises Unavailable."""

    def __post_init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._answered_at = time.monotonic()

    async def ask(self, target: Target, question: Question) -> Answer:
        """Return the answer of a model, or its refusal of this question.

        A question during which engines fail may be the cause, and is given up. Raises Unavailable
        if no engine has answered anything for a while.
        """
        async with self._room:
            began_at, failures = time.monotonic(), 0
            while True:
                try:
                    answer = await self._asked(target, question)
                except TunesmithError as error:
                    failures += may_be_the_cause(error)
                    if kind_of(error).is_lasting or failures >= MAX_FAILURES:
                        answer = Answer(error=error.message)
                    else:
                        self._require_patience(error, began_at)
                        await asyncio.sleep(PAUSE_SECONDS)
                        continue
                self._answered_at = time.monotonic()
                return answer

    async def _asked(self, target: Target, question: Question) -> Answer:
        if question.labels is not None:
            asked = classification_request(question, target, self.project)
            return labelled(await self.engine.ask(CLASSIFY, asked), question.several_labels)
        request = generation_request(question, target, self.project, self.template_kwargs)
        try:
            return written(await collect(self._events(request), [request]))
        except InvalidRequest as error:
            if error.code != "context_length_exceeded":
                raise
        # fewer tokens than the limit fit after the prompt, if it fits itself
        request = with_all_room(request)
        return written(await collect(self._events(request), [request]))

    async def _events(
        self, request: GenerationRequest
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        async with aclosing(self.engine.events(request)) as events:
            async for event in events:
                yield 0, event

    def _require_patience(self, error: TunesmithError, began_at: float) -> None:
        waiting_since = max(began_at, self._answered_at)
        if time.monotonic() - waiting_since > self.patience_seconds:
            raise Unavailable(error.message, code="engine_unavailable") from error
