"""How a batch treats its engines: retries, refusals, engines that break, a worker that stops."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from core.records.batches import BATCH
from core.records.tables import Task
from core.spec.batch import BatchStatus
from core.tasks.kinds import Queue
from tests.api.batch_files import chat_line
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.batches.killed import attempt_until, create, row
from tests.worker.quick_engine import quick_engine
from tests.worker.workshop import Workshop, wait_until
from worker.answering import dispatch, fleet
from worker.batches import journal
from worker.batches.lines import AnsweredLine
from worker.context import Worker
from worker.tasks.desk import TaskDesk


@pytest.fixture
def engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEngine]:
    """An engine for the workshop; retries and parts come soon."""
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    with quick_engine(workshop, monkeypatch) as engine:
        yield engine


def answer(workshop: Workshop, *contents: str) -> dict[str, Any]:
    """Run a batch; return the response of each line, by its number."""
    batch_id = create(workshop, [chat_line(n, content) for n, content in enumerate(contents)])
    assert attempt_until(workshop, None) is None
    return responses(workshop, batch_id)


def responses(workshop: Workshop, batch_id: str) -> dict[str, Any]:
    batch = row(workshop, batch_id)
    found: dict[str, Any] = {}
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            content = b"".join(workshop.store.read(f"files/{file_id}"))
            for line in map(json.loads, content.splitlines()):
                found[line["custom_id"]] = line["response"]
    return found


def test_line_that_always_fails_gets_the_error_and_others_their_answer(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    found = answer(workshop, "hello", "fail")
    assert found["line-0"]["status_code"] == 200
    assert found["line-1"]["status_code"] == 500
    assert found["line-1"]["body"]["error"]["code"] == "out_of_memory"
    assert len(engine.requests) == 1 + dispatch.MAX_FAILURES


def test_line_that_breaks_engines_is_tried_alone_at_the_end(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    found = answer(workshop, "stop short", *["hello"] * 20)
    assert found["line-0"]["status_code"] == 503
    assert {found[f"line-{n}"]["status_code"] for n in range(1, 21)} == {200}
    prompts = [str(each.prompt.messages[-1]["content"]) for each in engine.requests]  # type: ignore[union-attr]
    assert prompts.count("stop short") == dispatch.MAX_BROKEN + 1
    assert prompts[-1] == "stop short"


@pytest.mark.parametrize("mood", ["full", "stopping", "breaking", "silent"])
def test_engine_in_trouble_is_asked_again(
    workshop: Workshop, engine: ScriptedEngine, mood: Any
) -> None:
    engine.mood = mood
    batch_id = create(workshop, [chat_line(0), chat_line(1)])
    asked = 2 if mood in ("full", "stopping") else 1

    def recover() -> None:
        wait_until(lambda: len(engine.requests) > asked, "the batch has asked")
        engine.mood = "well"

    thread = threading.Thread(target=recover)
    thread.start()
    assert attempt_until(workshop, None) is None
    thread.join()
    assert {each["status_code"] for each in responses(workshop, batch_id).values()} == {200}


def test_engine_that_cannot_serve_the_model_is_left_to_others(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    engine.mood = "unfit"
    assert answer(workshop, "hello")["line-0"]["status_code"] == 400
    other = ScriptedEngine()
    with serve(other.app) as url:
        workshop.engine_at(url)
        found = answer(workshop, *["hello"] * 4)
    assert {each["status_code"] for each in found.values()} == {200}


def test_lines_of_a_lost_engine_are_sent_to_another(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose machine is gone closes no connection: only its heartbeats stop."""
    monkeypatch.setattr(fleet, "LOST_SECONDS", 0.3)
    asked = threading.Event()
    silent = ScriptedEngine()

    async def hang(request: Request) -> None:
        asked.set()
        await asyncio.sleep(3600)

    silent.app = Starlette(routes=[Route("/generate", hang, methods=["POST"])])
    workshop.forget_engines()
    with serve(silent.app) as url:
        workshop.engine_at(url)
        batch_id = create(workshop, [chat_line(0), chat_line(1)])

        def move() -> None:
            assert asked.wait(60)
            workshop.forget_engines()
            workshop.engine_at(engine.url)

        thread = threading.Thread(target=move)
        thread.start()
        assert attempt_until(workshop, None) is None
        thread.join()
    assert {each["status_code"] for each in responses(workshop, batch_id).values()} == {200}


def test_stopping_worker_stores_what_it_has_and_another_continues(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    added: list[AnsweredLine] = []
    add = journal.Journal.add

    def noted(self: journal.Journal, line: AnsweredLine) -> None:
        add(self, line)
        added.append(line)

    monkeypatch.setattr(journal.Journal, "add", noted)
    contents = ["hello"] * 4 + ["never end"]
    batch_id = create(workshop, [chat_line(n, content) for n, content in enumerate(contents)])
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    thread = threading.Thread(target=TaskDesk(worker, Queue.LIGHT).run_next)
    thread.start()
    wait_until(lambda: len(engine.requests) == 5, "all lines are sent")
    wait_until(lambda: len(added) == 4, "four lines are answered, and not stored yet")
    worker.stopping.set()
    thread.join()
    batch = row(workshop, batch_id)
    assert (batch.status, batch.completed) == (BatchStatus.IN_PROGRESS, 4)
    with workshop.database.reading() as session:
        [task] = session.query(Task).filter(Task.kind == BATCH)
        assert (task.attempts, task.claimed_by) == (0, None)
