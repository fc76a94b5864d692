"""Background responses in a worker that is killed, and at engines that fail."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.jobs.broker import Broker
from core.records import responses, tasks
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import StoredResponse, Task
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationFailed,
    GenerationRequest,
    GenerationStarted,
)
from core.spec.response import ResponsePlan
from core.tasks.kinds import Queue, Work
from tests.api.live import serve
from tests.core.inference.responses.planned import plan_of
from tests.worker.workshop import Workshop, wait_until, worker_process
from worker.answering import fleet
from worker.context import Worker
from worker.tasks.desk import TaskDesk

ANSWER: Sequence[AnswerEvent] = (
    GenerationStarted(prompt_tokens=3),
    GenerationDelta(choice=0, text="The"),
    GenerationDelta(choice=0, text=" end"),
    ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=2),
)
HANGING: Sequence[AnswerEvent] = ANSWER[:2]
BROKEN = (*HANGING, GenerationFailed(code="engine_unavailable", message="The engine stops."))


class Engine:
    """Gives one answer after another; one without an end hangs."""

    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = list(answers)
        self.requests: list[GenerationRequest] = []
        self.app = Starlette(routes=[Route("/generate", self._generate, methods=["POST"])])

    async def _generate(self, request: Request) -> Response:
        self.requests.append(GenerationRequest.model_validate_json(await request.body()))
        return StreamingResponse(self._lines(self.answers.pop(0)))

    async def _lines(self, answer: Sequence[Any]) -> AsyncIterator[str]:
        for event in answer:
            yield event.model_dump_json() + "\n"
        if answer is HANGING:
            await asyncio.sleep(3600)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_SECONDS", 0.05)


def queue(workshop: Workshop, *, stream: bool = True) -> ResponsePlan:
    plan = plan_of(background=True, stream=stream)
    body = {**plan.frame, "status": "queued", "output": []}
    events = [
        {"type": "response.created", "sequence_number": 0},
        {"type": "response.queued", "sequence_number": 1},
    ]
    with workshop.database.writing() as session:
        ensure_project(session)
        responses.queue_response(
            session,
            DEFAULT_PROJECT,
            body,
            [],
            plan,
            events=events if stream else (),
            kept_seconds=600,
        )
    return plan


def events(workshop: Workshop, plan: ResponsePlan) -> list[Any]:
    with workshop.database.reading() as session:
        return list(responses.events_after(session, DEFAULT_PROJECT, plan.id, -1))


def row(workshop: Workshop, plan: ResponsePlan) -> StoredResponse:
    with workshop.database.reading() as session:
        return responses.get_response(session, DEFAULT_PROJECT, plan.id)


def wake(workshop: Workshop) -> None:
    """Tell the workers of the only task, as the API does."""
    with workshop.database.reading() as session:
        task = session.query(Task).one()
    Broker(workshop.broker_url).wake(Work(task.kind, task.id))


def run_waiting(workshop: Workshop) -> None:
    worker = Worker(
        workshop.settings("worker-here"), workshop.database, workshop.store, threading.Event()
    )
    TaskDesk(worker, Queue.LIGHT).run_waiting()


@pytest.fixture
def engine(workshop: Workshop) -> Iterator[Engine]:
    engine = Engine()
    with serve(engine.app) as url:
        workshop.engine_at(url)
        yield engine


def test_killed_worker_loses_nothing(workshop: Workshop, engine: Engine) -> None:
    """Another worker generates again with the same seed, and continues the stored events."""
    engine.answers = [HANGING, ANSWER]
    plan = queue(workshop)
    with worker_process(workshop, "worker-dead", "worker.light") as process:
        wake(workshop)
        wait_until(
            lambda: any(event.get("delta") == "The" for event in events(workshop, plan)),
            "the first worker has stored a part of the answer",
        )
        before = events(workshop, plan)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with workshop.database.writing() as session:
        assert [work.kind for work in tasks.rescue_expired(session, worker_id="worker-dead")]
    run_waiting(workshop)
    after = events(workshop, plan)
    assert after[: len(before)] == before
    assert [event["sequence_number"] for event in after] == list(range(len(after)))
    assert "".join(event.get("delta", "") for event in after) == "The end"
    first, second = engine.requests
    assert first == second
    found = row(workshop, plan)
    assert found.is_finished and found.body == after[-1]["response"]


def test_events_of_a_response_that_is_only_polled_are_not_stored(
    workshop: Workshop, engine: Engine
) -> None:
    engine.answers = [ANSWER]
    plan = queue(workshop, stream=False)
    run_waiting(workshop)
    assert events(workshop, plan) == []
    body = row(workshop, plan).body
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", "The end")


def test_engine_that_stops_in_the_middle_is_asked_again(workshop: Workshop, engine: Engine) -> None:
    engine.answers = [BROKEN, ANSWER[:2], ANSWER]
    plan = queue(workshop)
    run_waiting(workshop)
    found = events(workshop, plan)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert "".join(event.get("delta", "") for event in found) == "The end"
    assert len(engine.requests) == 3


def test_request_that_breaks_engines_fails(workshop: Workshop, engine: Engine) -> None:
    engine.answers = [ANSWER[:2]] * 5
    plan = queue(workshop)
    run_waiting(workshop)
    with workshop.database.reading() as session:
        (task,) = session.query(Task)
        assert task.error is not None and task.error["code"] == "engine_unavailable"
    assert len(engine.requests) == 3
    assert not row(workshop, plan).is_finished


def test_attempt_after_the_end_was_stored_does_not_generate(
    workshop: Workshop, engine: Engine
) -> None:
    """A worker may be killed between the end of the response and the end of its task."""
    engine.answers = [ANSWER]
    plan = queue(workshop)
    run_waiting(workshop)
    with workshop.database.writing() as session:
        task = session.query(Task).one()
        task.finished_at = task.result = None
    run_waiting(workshop)
    assert len(engine.requests) == 1
    assert row(workshop, plan).is_finished
