"""What a worker reads of an engine's stream."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from core.errors import TunesmithError
from core.spec.base_model import BaseModelSpec
from core.spec.engine_protocol import (
    FULL,
    NOT_SERVED_HERE,
    EngineBroke,
    EngineUnreachable,
    RefusalKind,
    kind_of,
)
from core.spec.generation import (
    AnswerEvent,
    GenerationDelta,
    GenerationRequest,
    SamplingSpec,
    TextPrompt,
)
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    with serve(engine.app) as engine.url:
        yield engine


def request(prompt: str) -> GenerationRequest:
    return GenerationRequest(
        id="call-1",
        base=BaseModelSpec(id="tiny", source="/tiny"),
        prompt=TextPrompt(text=prompt),
        sampling=SamplingSpec(max_tokens=16, seed=0),
        project="default",
    )


def events(url: str, prompt: str) -> list[AnswerEvent]:
    async def read() -> list[AnswerEvent]:
        async with OneEngineClient(EngineAddress(url)) as client:
            return [event async for event in client.events(request(prompt))]

    return asyncio.run(read())


def all_events(url: str, prompt: str) -> list[AnswerEvent]:
    async def read() -> list[AnswerEvent]:
        async with OneEngineClient(EngineAddress(url)) as client:
            return await client.generate(request(prompt))

    return asyncio.run(read())


def test_text_with_separators_of_lines_comes_whole(engine: ScriptedEngine) -> None:
    read = events(engine.url, "say strange things")
    text = "".join(event.text for event in read if isinstance(event, GenerationDelta))
    assert text == "é\u2028 \u0085 \U0001f600"


def test_answer_that_fails_or_ends_early_is_an_error(engine: ScriptedEngine) -> None:
    with pytest.raises(TunesmithError) as failed:
        events(engine.url, "fail")
    assert failed.value.code == "out_of_memory"
    with pytest.raises(EngineBroke, match="too early"):
        events(engine.url, "stop short")


@pytest.mark.parametrize(("mood", "kind"), [("unfit", NOT_SERVED_HERE), ("full", FULL)])
def test_refusals_have_their_kinds(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, mood: str, kind: RefusalKind
) -> None:
    monkeypatch.setattr(engine, "mood", mood)
    with pytest.raises(TunesmithError) as caught:
        events(engine.url, "hello")
    assert kind_of(caught.value) is kind


def test_nobody_at_the_address_is_told_from_a_broken_connection(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineUnreachable):
        events("http://127.0.0.1:1", "hello")
    monkeypatch.setattr(engine, "mood", "breaking")
    with pytest.raises(EngineBroke):
        events(engine.url, "hello")


@pytest.mark.parametrize("prompt", ["hello", "fail", "stop short"])
def test_all_events_at_once_are_those_of_the_stream(engine: ScriptedEngine, prompt: str) -> None:
    def end_of(read: Callable[[str, str], list[AnswerEvent]]) -> object:
        try:
            return read(engine.url, prompt)
        except TunesmithError as error:
            return type(error), error.code, error.message

    assert end_of(all_events) == end_of(events)
