"""The score of a trial: a mean over the held-out rows, by a scripted engine."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.inference.targets import Target
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    TextPrompt,
)
from core.spec.grader import StringCheckGrader
from core.spec.held_out import Question
from core.spec.ids import ModelId
from core.spec.job import JobSpec
from tests.worker.answering.in_memory import background_at
from tests.worker.workshop import TINY
from worker.verdict.trial_score import TrialModel, TrialScore

GRADER = StringCheckGrader(
    name="exact", input="{{sample.output_text}}", reference="{{item.reference}}", operation="eq"
)


class Echo:
    """Answers with the prompt; refuses an empty one."""

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        assert isinstance(request.prompt, TextPrompt)
        if not request.prompt.text:
            raise InvalidRequest("There is nothing to answer.")
        yield GenerationStarted(prompt_tokens=1)
        yield GenerationDelta(choice=0, text=request.prompt.text)
        yield ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=1)

    async def ask(self, call: Any, request: Any) -> Any:
        raise AssertionError("no classifier")


@pytest.mark.parametrize(
    ("prompts", "score"),
    [
        (["yes", "yes", "no", "no"], 0.5),
        (["yes", "yes", "", ""], 1.0),
        (["yes", "", "", ""], None),
        ([""], None),
        ([], None),
    ],
)
def test_score_is_the_mean_of_at_least_half_of_the_rows(
    prompts: list[str], score: float | None
) -> None:
    """opik#8134: a run of which five rows failed was compared by the mean of the other five."""
    questions = [
        Question(line=line, text=prompt, reference="yes", max_tokens=9)
        for line, prompt in enumerate(prompts)
    ]
    target = Target(ModelId(TINY.id), TINY, None)
    model = TrialModel("default", JobSpec(base=TINY, seed=1), GRADER, target, questions)
    assert TrialScore(lambda: background_at(Echo()), lambda: False)(model) == score
