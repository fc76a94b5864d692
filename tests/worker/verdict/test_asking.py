"""Questions while engines fail."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from core.errors import TunesmithError, Unavailable
from core.inference.targets import Target
from core.spec.engine_protocol import EngineBroke
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
)
from core.spec.held_out import Question
from core.spec.verdict import Answer
from tests.worker.workshop import TINY
from worker.verdict import asking
from worker.verdict.asking import MAX_FAILURES, Asking

BASE = Target(TINY.id, TINY, None)
QUESTION = Question(line=1, text="?", reference="right", max_tokens=5)


class Engine:
    """Raises its failures, one for each request, then answers."""

    def __init__(self, *failures: TunesmithError) -> None:
        self.failures = list(failures)
        self.requests = 0

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        self.requests += 1
        if self.failures:
            raise self.failures.pop(0)
        yield GenerationStarted(prompt_tokens=1)
        yield GenerationDelta(choice=0, text="right")
        yield ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=1)

    async def ask(self, call: Any, request: Any) -> Any:
        raise NotImplementedError


def asked(engine: Engine, patience_seconds: float = 30, idle_seconds: float = 0) -> Answer:
    async def ask() -> Answer:
        own = Asking(engine, "shop", patience_seconds=patience_seconds)
        await asyncio.sleep(idle_seconds)
        return await own.ask(BASE, QUESTION)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize(
    "failure",
    [
        EngineBroke("It died."),
        TunesmithError("It died.", code="internal_error"),
        Unavailable("It died.", code="generation_failed"),
    ],
)
def test_question_during_which_engines_fail_is_given_up(failure: TunesmithError) -> None:
    engine = Engine(*[failure] * 9)
    assert asked(engine).error == "It died."
    assert engine.requests == MAX_FAILURES


def test_question_is_repeated_while_no_engine_takes_it() -> None:
    full = Unavailable("Full.", code="queue_full")
    assert asked(Engine(*[full] * 9, EngineBroke("It died."))).text == "right"


def test_patience_begins_with_the_question() -> None:
    full = Unavailable("Full.", code="queue_full")
    assert asked(Engine(full), patience_seconds=0.2, idle_seconds=0.3).text == "right"
    with pytest.raises(Unavailable, match="Full"):
        asked(Engine(*[full] * 999), patience_seconds=0.2)
