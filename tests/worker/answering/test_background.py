"""Questions while engines fail."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.inference.targets import Target
from core.spec.engine_protocol import BaseMissing, EngineBroke, EngineKeyRefused, NotServedHere
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
)
from core.spec.held_out import Question
from core.spec.verdict import Answer
from tests.worker.answering.in_memory import background_at
from tests.worker.workshop import TINY
from worker.answering import dispatch, fleet
from worker.verdict.asking import Asking

BASE = Target(TINY.id, TINY, None)
QUESTION = Question(line=1, text="?", reference="right", max_tokens=5)


class Engine:
    """Raises its failures, one for each request, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked: list[str] = []

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        self.asked.append(request.prompt.text)  # type: ignore[union-attr]
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        yield GenerationStarted(prompt_tokens=1)
        yield GenerationDelta(choice=0, text="right")
        yield ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=1)

    async def ask(self, call: Any, request: Any) -> Any:
        raise NotImplementedError


def asked(*engines: Engine, patience_seconds: float = 30, idle_seconds: float = 0) -> Answer:
    background = background_at(*engines, patience_seconds=patience_seconds)

    async def ask() -> Answer:
        await asyncio.sleep(idle_seconds)
        return await Asking(background, "shop").ask(BASE, QUESTION)

    return asyncio.run(background.during(ask()))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize(
    "failure",
    [
        lambda: EngineBroke("It died."),
        lambda: TunesmithError("It died.", code="internal_error"),
        lambda: Unavailable("It died.", code="generation_failed"),
    ],
)
def test_question_during_which_engines_fail_is_given_up(
    failure: Callable[[], TunesmithError],
) -> None:
    engine = Engine(*[failure() for _ in range(9)])
    assert asked(engine).error == "It died."
    assert len(engine.asked) == 3


@pytest.mark.parametrize(
    "failure", [InvalidRequest("No."), NotFound("No."), NotServedHere("No."), BaseMissing("No.")]
)
def test_refusal_of_the_only_engine_is_the_answer(failure: TunesmithError) -> None:
    engine = Engine(failure)
    assert asked(engine).error == "No."
    assert len(engine.asked) == 1


@pytest.mark.parametrize("failure", [NotServedHere("Not here."), BaseMissing("No files.")])
def test_engine_that_cannot_serve_the_model_leaves_it_to_another(failure: TunesmithError) -> None:
    for order in (0, 1):
        engines = [Engine(*[failure] * 9), Engine()]
        assert asked(*(engines[order], engines[1 - order])).text == "right"
        assert len(engines[0].asked) <= 1


@pytest.mark.parametrize(
    "refusal",
    [
        Unavailable("Full.", code="queue_full"),
        Unavailable("It stops.", code="engine_stopping"),
        EngineKeyRefused("Wrong key."),
    ],
)
def test_question_is_repeated_while_no_engine_takes_it(refusal: TunesmithError) -> None:
    engine = Engine(*[refusal] * 9, EngineBroke("It died."))
    assert asked(engine).text == "right"
    assert len(engine.asked) == 11


def test_patience_begins_with_the_question() -> None:
    full = Unavailable("Full.", code="queue_full")
    assert asked(Engine(full), patience_seconds=0.2, idle_seconds=0.3).text == "right"
    for engines in ([Engine(*[full] * 999)], []):
        with pytest.raises(Unavailable, match="Full" if engines else "No engine is available"):
            asked(*engines, patience_seconds=0.2)


def test_fault_of_this_service_reaches_the_asker_at_once() -> None:
    engine = Engine(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        asked(engine)
    assert len(engine.asked) == 1


def test_question_that_kills_engines_comes_last_and_others_are_answered() -> None:
    class Mortal(Engine):
        async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
            if request.prompt.text == "deadly":  # type: ignore[union-attr]
                self.failures = [EngineBroke("It died.")]
            async for event in super().events(request):
                yield event

    engine = Mortal()
    background = background_at(engine)
    asking = Asking(background, "shop")
    texts = ["deadly", *(f"{number}?" for number in range(40))]

    async def ask_all() -> list[Answer]:
        questions = [QUESTION.model_copy(update={"text": text}) for text in texts]
        return await asyncio.gather(*(asking.ask(BASE, each) for each in questions))

    first, *others = asyncio.run(background.during(ask_all()))
    assert first.error == "It died." and {each.text for each in others} == {"right"}
    assert engine.asked[-1] == "deadly" and engine.asked.count("deadly") == 3


def test_many_questions_share_the_engines_within_their_limits() -> None:
    class Counting(Engine):
        running = most = 0

        async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.005)
            async for event in super().events(request):
                yield event
            self.running -= 1

    engines = [Counting(), Counting()]
    background = background_at(*engines)
    asking = Asking(background, "shop")

    async def ask_all() -> list[Answer]:
        return await asyncio.gather(*(asking.ask(BASE, QUESTION) for _ in range(100)))

    assert {each.text for each in asyncio.run(background.during(ask_all()))} == {"right"}
    assert [engine.most for engine in engines] == [12, 12]
    assert sum(len(engine.asked) for engine in engines) == 100
