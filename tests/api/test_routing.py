"""Two engines behind one API: where requests go, and what becomes of those that go wrong."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.generation import engine_router
from core.records.engines import engine_gone
from core.records.owned import get_owned
from core.records.tables import TunedModel
from tests.api import as_worker
from tests.api.live import Api, register, serve
from tests.api.scripted_engine import ANSWER, Mood, ScriptedEngine

CHAT = "/v1/chat/completions"
CLASSIFICATIONS = "/v1/classifications"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def fresh_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change what the database says more often than once a second."""
    monkeypatch.setattr(engine_router, "ROSTER_SECONDS", 0.0)


@pytest.fixture
def other(api: Api, engine: ScriptedEngine) -> Iterator[ScriptedEngine]:
    """A second engine, which is not asked before the first, as it has more to do."""
    other = ScriptedEngine()
    with serve(other.app) as other.url:
        register(api, engine.url, max_running=8)
        register(api, other.url, max_running=8, running=4)
        yield other


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


def ask(client: httpx.Client, model: str = "tunesmith/tiny", **options: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "What is the answer?"}]
    return client.post(CHAT, json={"model": model, "messages": messages} | options)


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def counts(*engines: ScriptedEngine) -> list[int]:
    return [len(engine.requests) + len(engine.classified) for engine in engines]


def test_requests_go_where_their_adapter_is(
    api: Api, client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine, tuned: str
) -> None:
    with api.database.reading() as session:
        sha256 = get_owned(session, TunedModel, "default", tuned).bundle_sha256
    base = api.state.catalog.resolve("tunesmith/tiny")
    register(api, engine.url, bases=[base], max_running=8)
    register(api, other.url, bases=[base], bundles=[sha256], running=7, max_running=8)
    for _ in range(3):
        assert text_of(ask(client, tuned)) == ANSWER
    assert counts(engine, other) == [0, 3]
    assert text_of(ask(client)) == ANSWER
    assert client.post(CLASSIFICATIONS, json={"model": tuned, "input": "Hi"}).status_code == 200
    assert counts(engine, other) == [1, 4]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mood", ["unfit", "full", "stopping", "silent", "breaking"])
def test_before_the_first_token_the_next_engine_is_asked(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine, mood: Mood, stream: bool
) -> None:
    engine.mood = mood
    answer = ask(client, stream=stream)
    if stream:
        assert answer.text.endswith("data: [DONE]\n\n")
        assert "forty-two" in answer.text
    else:
        assert text_of(answer) == ANSWER
    assert counts(engine, other) == [1, 1]


@pytest.mark.parametrize("mood", ["unfit", "full", "stopping", "breaking"])
def test_texts_to_label_are_sent_to_the_next_engine_too(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine, tuned: str, mood: Mood
) -> None:
    engine.mood = mood
    answer = client.post(CLASSIFICATIONS, json={"model": tuned, "input": "Hi"})
    assert answer.json()["results"] == [{"label": {"scores": {"spam": 0.25, "ham": 0.75}}}]
    assert counts(engine, other) == [1, 1]


def test_an_engine_that_nobody_reaches_is_left_out_until_its_next_heartbeat(
    api: Api, client: httpx.Client, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=engine_router.__name__)
    register(api, engine.url, running=4, max_running=8)
    register(api, NOBODY, max_running=8)

    def attempts() -> int:
        caplog.clear()
        assert text_of(ask(client)) == ANSWER
        return sum(NOBODY in record.getMessage() for record in caplog.records)

    assert [attempts(), attempts(), attempts()] == [1, 0, 0]
    register(api, NOBODY, max_running=8)
    assert [attempts(), attempts()] == [1, 0]


def test_after_the_first_token_no_other_engine_is_asked(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    engine.mood = "breaking later"
    *chunks, last = ask(client, stream=True).text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert json.loads(chunks[1].removeprefix("data: "))["choices"][0]["delta"]["content"] == "The"
    assert ask(client).status_code == 503
    assert counts(engine, other) == [2, 0]


def test_what_no_engine_can_do_is_a_wrong_request_unless_one_that_could_is_full(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    engine.mood = other.mood = "unfit"
    answer = ask(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_adapter")
    assert counts(engine, other) == [1, 1]
    other.mood = "full"
    assert ask(client).status_code == 429


def test_a_wrong_request_is_refused_once(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    messages = [{"role": "user", "content": "word " * 101}]
    answer = client.post(CHAT, json={"model": "tunesmith/tiny", "messages": messages})
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert counts(engine, other) == [1, 0]


@pytest.mark.parametrize(
    ("moods", "status", "code", "retry_after"),
    [
        (("full", "full"), 429, "rate_limit_exceeded", "3"),
        (("full", "stopping"), 503, "engine_stopping", "5"),
        (("stopping", "full"), 503, "engine_stopping", "5"),
        (("breaking", "breaking"), 503, "engine_unavailable", "5"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_when_nobody_is_left_the_answer_says_when_to_come_back(
    client: httpx.Client,
    engine: ScriptedEngine,
    other: ScriptedEngine,
    moods: tuple[Mood, Mood],
    status: int,
    code: str,
    retry_after: str,
    stream: bool,
) -> None:
    engine.mood, other.mood = moods
    answer = ask(client, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["retry-after"] == retry_after
    assert counts(engine, other) == [1, 1]


def test_without_a_living_engine_there_is_no_answer(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    register(api, engine.url, status="draining")
    register(api, NOBODY)
    answer = ask(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    with api.database.writing() as session:
        engine_gone(session, NOBODY)
    answer = ask(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert counts(engine) == [0]


def test_a_request_that_breaks_engines_does_not_go_through_all_of_them(
    api: Api, client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine
) -> None:
    third = ScriptedEngine()
    engine.mood = other.mood = "breaking"
    with serve(third.app) as third.url:
        register(api, third.url, running=8, max_running=8)
        assert ask(client).status_code == 503
        assert counts(engine, other, third) == [1, 1, 0]


def test_an_engine_that_came_a_moment_ago_is_found_when_the_others_fail(
    api: Api, client: httpx.Client, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text_of(ask(client)) == ANSWER
    monkeypatch.setattr(engine_router, "ROSTER_SECONDS", 3600.0)
    engine.mood = "stopping"
    other = ScriptedEngine()
    with serve(other.app) as other.url:
        register(api, other.url)
        assert text_of(ask(client)) == ANSWER
        assert counts(engine, other) == [2, 1]


def test_several_requests_at_once_are_spread(
    client: httpx.Client, engine: ScriptedEngine, other: ScriptedEngine, api: Api
) -> None:
    register(api, other.url, max_running=8)
    body = {"model": "tunesmith/tiny", "prompt": [f"prompt {i}" for i in range(12)], "n": 1}
    assert client.post("/v1/completions", json=body).status_code == 200
    assert min(counts(engine, other)) >= 4
