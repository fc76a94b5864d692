"""Background responses: polled, streamed again, cancelled, and run by any light worker."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from core.records import tasks
from core.records.engines import engine_gone
from core.records.responses import RESPONSE, append_events
from core.records.tables import ResponseEvents, StoredResponse, Task
from core.spec.response import ResponsePlan
from tests.api.light_worker import light_worker_of
from tests.api.live import Api, register
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.api.test_responses import RESPONSES, asked, create, events_of, text_of
from tests.contract.contract import check_schema

TIMEOUT_SECONDS = 120.0


@pytest.fixture
def worker(api: Api) -> Iterator[None]:
    with light_worker_of(api):
        yield


def wait_for(client: httpx.Client, response: dict[str, Any], *status: str) -> Any:
    def is_there() -> Any:
        found = client.get(f"{RESPONSES}/{response['id']}").json()
        return found if found["status"] in status else None

    return wait(is_there)


def wait(read: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (found := read()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_response_is_queued_and_polled(client: httpx.Client, worker: None) -> None:
    queued = create(client, background=True, metadata={"a": "b"})
    assert (queued["status"], queued["output"]) == ("queued", [])
    response = wait_for(client, queued, "completed")
    assert text_of(response) == ANSWER
    assert (response["id"], response["background"]) == (queued["id"], True)
    again = create(client, "And now?", previous_response_id=response["id"])
    assert again["status"] == "completed"
    reference = [{"type": "item_reference", "id": response["output"][0]["id"]}]
    assert create(client, [*reference, {"role": "user", "content": "x"}])["output"]


def test_response_is_streamed_while_it_runs_and_again(client: httpx.Client, worker: None) -> None:
    events = events_of(client.post(RESPONSES, json=asked(background=True, stream=True)))
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert text_of(events[-1]["response"]) == ANSWER
    path = f"{RESPONSES}/{events[0]['response']['id']}"
    for after in (-1, 0, 4, len(events) - 2):
        again = client.get(path, params={"stream": True, "starting_after": after})
        assert events_of(again) == events[after + 1 :]
    assert client.get(path).json() == events[-1]["response"]


def test_cancelled_response_ends_its_generation(
    api: Api, client: httpx.Client, engine: ScriptedEngine, worker: None
) -> None:
    running = create(client, "never end", background=True)
    wait_for(client, running, "in_progress")
    wait(lambda: engine.requests)
    path = f"{RESPONSES}/{running['id']}"
    for _ in range(2):  # a second time changes nothing
        cancelled = client.post(f"{path}/cancel").json()
        assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
    assert engine.was_left.wait(TIMEOUT_SECONDS)
    assert client.get(path).json()["status"] == "cancelled"
    with api.database.reading() as session:
        assert session.query(Task).count() == 0


def test_waiting_response_is_cancelled_or_deleted(api: Api, client: httpx.Client) -> None:
    first, second = create(client, background=True), create(client, background=True)
    assert client.post(f"{RESPONSES}/{first['id']}/cancel").json()["status"] == "cancelled"
    body = asked(previous_response_id=second["id"])
    refusal = client.post(RESPONSES, json=body).json()["error"]
    assert refusal["code"] == "previous_response_not_finished"
    assert client.delete(f"{RESPONSES}/{second['id']}").status_code == 200
    with api.database.reading() as session:
        assert session.query(Task).count() == 0


def test_finished_response_is_not_cancelled(client: httpx.Client, worker: None) -> None:
    response = wait_for(client, create(client, background=True), "completed")
    assert client.post(f"{RESPONSES}/{response['id']}/cancel").json() == response


def test_refusal_of_the_engine_is_a_failure(client: httpx.Client, worker: None) -> None:
    failed = wait_for(client, create(client, "word " * 200, background=True), "failed")
    assert failed["error"]["code"] == "invalid_prompt"
    assert "too long" in failed["error"]["message"]
    path = f"{RESPONSES}/{failed['id']}"
    assert client.post(f"{path}/cancel").json()["status"] == "failed"
    streamed = events_of(client.post(RESPONSES, json=asked("fail", background=True, stream=True)))
    assert [event["type"] for event in streamed][-1] == "response.failed"
    assert streamed[-1]["response"]["error"]["code"] == "server_error"


def test_response_waits_until_an_engine_is_there(
    api: Api, client: httpx.Client, engine: ScriptedEngine, worker: None
) -> None:
    with api.database.writing() as session:
        engine_gone(session, engine.url)
    waiting = wait_for(client, create(client, background=True), "in_progress")
    register(api, engine.url)
    assert text_of(wait_for(client, waiting, "completed")) == ANSWER


def test_second_attempt_continues_the_stream_of_a_killed_worker(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    """The events that the first worker has stored are neither stored nor sent twice."""
    with httpx.Client(base_url=api.url, timeout=TIMEOUT_SECONDS, trust_env=False) as other:
        body = asked(background=True, stream=True)
        with other.stream("POST", RESPONSES, json=body) as stream:
            lines = stream.iter_lines()
            while not next(lines).startswith("event: response.queued"):
                pass
            with api.database.writing() as session:
                claim = tasks.claim_next(session, "worker-dead", [RESPONSE])
                assert claim is not None
                plan = ResponsePlan.model_validate(claim.payload)
            first = _events_of_the_first_attempt(plan)
            with api.database.writing() as session:
                append_events(session, claim, first)
                tasks.rescue_expired(session, worker_id="worker-dead")
            with light_worker_of(api):
                rest = "\n".join(lines)
    assert '"response.completed"' in rest
    again = client.get(f"{RESPONSES}/{plan.id}", params={"stream": True})
    events = events_of(again)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[2 : 2 + len(first)] == first
    assert text_of(events[-1]["response"]) == ANSWER
    assert "".join(event.get("delta", "") for event in events) == ANSWER
    with api.database.reading() as session:
        stored = [event for row in session.query(ResponseEvents) for event in row.events]
        assert len(stored) == len(events)
        assert session.query(StoredResponse).one().is_finished


def _events_of_the_first_attempt(plan: ResponsePlan) -> list[dict[str, Any]]:
    from core.inference.responses.events import ResponseWriter
    from core.spec.generation import GenerationDelta, GenerationStarted

    writer = ResponseWriter(plan)
    writer.opening()
    events = writer.starting()
    for event in (GenerationStarted(prompt_tokens=4), GenerationDelta(choice=0, text="The")):
        events += writer.add(event)
    for each in events:
        check_schema("ResponseStreamEvent", each)
    return events
