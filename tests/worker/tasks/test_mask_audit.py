"""A mask audit that somebody asked for is answered by a real child, whatever the file holds."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.records import masks
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Task
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.mask import MaskResult
from core.tasks.kinds import Queue
from tests.worker.workshop import Workshop
from worker.context import Worker
from worker.launch import warm_up
from worker.tasks.desk import TaskDesk

TINY = Path(__file__).parents[3] / "core" / "models" / "tiny"
SPEC = JobSpec(base=BaseModelSpec(id="tunesmith/tiny", source=str(TINY)), seed=1)
CHAT = {
    "messages": [
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "Four."},
    ]
}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """A worker is warm before it takes anything; its imports do not count as an attempt's time."""
    warm_up()


@pytest.fixture
def ask(workshop: Workshop) -> Callable[[str], str]:
    """Ask for an audit of a file with this content; return the audit's id."""

    def ask(content: str) -> str:
        file_id = workshop.upload(content)
        with workshop.database.writing() as session:
            return masks.request_audit(session, DEFAULT_PROJECT, file_id, SPEC).id

    return ask


def answered(workshop: Workshop, audit_id: str) -> Task:
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    TaskDesk(worker, Queue.LIGHT).run_waiting()
    with workshop.database.reading() as session:
        audit = masks.get_audit(session, DEFAULT_PROJECT, audit_id)
    assert audit.finished_at is not None
    return audit


def test_audit_is_answered_token_by_token(workshop: Workshop, ask: Callable[[str], str]) -> None:
    audit = answered(workshop, ask(json.dumps(CHAT) + "\n"))
    assert audit.error is None
    (row,) = MaskResult.model_validate(audit.result).rows
    trained = "".join(token.text for token in row.parts[0].tokens if token.trained)
    assert trained.startswith("Four.")
    assert list(workshop.settings().work_folder.glob("tasks/*")) == []


def test_audit_of_a_worker_that_stops_waits_for_another(
    workshop: Workshop, ask: Callable[[str], str]
) -> None:
    audit_id = ask(json.dumps(CHAT) + "\n")
    stopping = threading.Event()
    stopping.set()
    worker = Worker(workshop.settings(), workshop.database, workshop.store, stopping)
    assert TaskDesk(worker, Queue.LIGHT).run_next()
    with workshop.database.reading() as session:
        audit = masks.get_audit(session, DEFAULT_PROJECT, audit_id)
        assert (audit.finished_at, audit.attempts, audit.claimed_by) == (None, 0, None)
    assert answered(workshop, audit_id).error is None


def test_audit_of_a_faulty_file_names_the_line(
    workshop: Workshop, ask: Callable[[str], str]
) -> None:
    audit = answered(workshop, ask(json.dumps(CHAT) + "\n{}\n"))
    assert audit.error is not None
    assert audit.error["code"] == "invalid_training_file"
    assert "Line 2" in audit.error["message"]
