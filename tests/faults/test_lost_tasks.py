"""Light workers that die, freeze or are told to go: no task is lost, none ends twice.

The faults are those of `test_lost_workers`. One real worker process of the queue `light` is the
victim; this process is the worker that comes to the rescue.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from core.records import masks, outbox, tasks
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Task
from core.spec.job import JobSpec
from core.tasks.kinds import Queue, Work
from tests.worker.nap import NAP, nap_kind
from tests.worker.naps import Naps
from tests.worker.workshop import (
    ROW,
    TINY,
    Workshop,
    freeze,
    wait_until,
    worker_process,
)
from worker.context import Worker
from worker.tasks.desk import TaskDesk

pytestmark = pytest.mark.usefixtures("naps", "housekeeper")

VICTIM = "worker-victim"


@pytest.fixture(scope="module")
def naps(workshop: Workshop) -> Iterator[Naps]:
    with nap_kind():
        yield Naps(workshop)


@pytest.fixture(scope="module")
def victim(workshop: Workshop) -> Iterator[subprocess.Popen[bytes]]:
    with worker_process(workshop, VICTIM, "tests.worker.napping_worker") as process:
        yield process


def run_here(workshop: Workshop) -> None:
    """Run what waits in this process."""
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    TaskDesk(worker, Queue.LIGHT).run_waiting()


def held_by_victim(naps: Naps, name: str) -> str:
    task_id = naps.ask(name)
    naps.wake(task_id)
    naps.wait_for_start(name)
    assert naps.row(task_id).claimed_by == VICTIM
    return task_id


def assert_slept(task: Task, *, attempts: int) -> None:
    assert (task.result, task.error, task.attempts) == ({"dream": "sheep"}, None, attempts)


def test_task_whose_message_comes_three_times_runs_once(
    naps: Naps, victim: subprocess.Popen[bytes]
) -> None:
    task_id = naps.ask("thrice")
    for _ in range(3):
        naps.wake(task_id)
    after = naps.ask("after")
    naps.wake(after)
    for name, asked in (("thrice", task_id), ("after", after)):
        naps.end(name)
        assert_slept(naps.wait_for_end(asked), attempts=1)
        assert len(naps.starts(name)) == 1


def test_lost_message_is_sent_again(
    workshop: Workshop, naps: Naps, victim: subprocess.Popen[bytes]
) -> None:
    task_id = naps.ask("lost")  # and nobody wakes a worker for it
    naps.end("lost")
    with workshop.database.writing() as session:
        # instead of a wait of 15 s
        outbox.enqueue(session, Work("nap", task_id), send_after_seconds=0)
    assert_slept(naps.wait_for_end(task_id), attempts=1)


def test_mask_of_a_worker_that_was_lost_is_shown_by_another(
    workshop: Workshop, victim: subprocess.Popen[bytes]
) -> None:
    file_id = workshop.upload("".join(ROW % number for number in range(8)))
    with workshop.database.writing() as session:
        audit_id = masks.request_audit(
            session, DEFAULT_PROJECT, file_id, JobSpec(base=TINY, seed=1)
        ).id
    with workshop.database.writing() as session:
        claim = tasks.claim_next(session, "worker-dead", [masks.MASK_AUDIT])
        assert claim is not None
        assert tasks.rescue_expired(session, worker_id="worker-dead") == [claim.work]

    def audit() -> Task:
        with workshop.database.reading() as session:
            return masks.get_audit(session, DEFAULT_PROJECT, audit_id)

    wait_until(lambda: audit().finished_at is not None, "the mask is shown")
    assert (audit().error, audit().attempts) == (None, 2)
    assert audit().result is not None


def test_frozen_worker_finds_its_task_taken_when_it_wakes(
    workshop: Workshop, naps: Naps, victim: subprocess.Popen[bytes]
) -> None:
    task_id = held_by_victim(naps, "frozen")
    freeze(workshop, victim)
    wait_until(lambda: naps.row(task_id).claimed_by is None, "the lease expires")
    naps.end("frozen")
    run_here(workshop)
    ended = naps.row(task_id)
    assert_slept(ended, attempts=2)
    workspace = workshop.folder / "work" / "tasks" / f"{task_id}.1"
    assert workspace.exists()
    victim.send_signal(signal.SIGCONT)
    wait_until(lambda: not workspace.exists(), "it has given up")
    now = naps.row(task_id)
    assert (now.finished_at, now.claim_token) == (ended.finished_at, ended.claim_token)
    ended = f"The claim on {task_id} ended before its result"
    assert ended in (workshop.folder / f"{VICTIM}.log").read_text()


def test_killed_worker_loses_its_task_to_another(
    workshop: Workshop, naps: Naps, victim: subprocess.Popen[bytes]
) -> None:
    """The first test that ends the victim; those after it need none."""
    task_id = held_by_victim(naps, "killed")
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    wait_until(lambda: naps.row(task_id).claimed_by is None, "the lease expires")
    assert naps.row(task_id).finished_at is None
    naps.end("killed")
    run_here(workshop)
    assert_slept(naps.row(task_id), attempts=2)
    assert [start.split()[1] for start in naps.starts("killed")] == ["1", "3"]


def test_task_that_kills_every_worker_fails_with_a_reason(workshop: Workshop, naps: Naps) -> None:
    task_id = naps.ask("deadly")
    for number in range(NAP.max_attempts):
        with workshop.database.writing() as session:
            claim = tasks.claim_next(session, f"worker-{number}", ["nap"])
        assert claim is not None and claim.id == task_id
        wait_until(lambda: naps.row(task_id).claimed_by is None, "the lease expires")
    task = naps.row(task_id)
    assert task.error is not None and task.error["code"] == "worker_lost"
