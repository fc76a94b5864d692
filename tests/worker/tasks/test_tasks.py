"""What a worker does with tasks: any kind of the table, each within its bounds."""

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.records import tasks
from core.records.tables import Task
from core.tasks.kinds import KINDS, Queue, Work
from tests.worker.nap import nap_kind
from tests.worker.naps import Naps
from tests.worker.workshop import Workshop, wait_until
from worker import housekeeping
from worker.context import Worker
from worker.process.app import device_work
from worker.tasks.desk import TaskDesk


@pytest.fixture
def naps(workshop: Workshop) -> Iterator[Naps]:
    with nap_kind():
        yield Naps(workshop)


def worker_of(workshop: Workshop, worker_id: str = "worker-here") -> Worker:
    return Worker(
        workshop.settings(worker_id), workshop.database, workshop.store, threading.Event()
    )


@contextmanager
def running(worker: Worker, threads: int = 1) -> Iterator[TaskDesk]:
    """Run what waits in threads; they end when nothing waits, and the block with them."""
    desk = TaskDesk(worker, Queue.LIGHT)
    started = [threading.Thread(target=desk.run_waiting) for _ in range(threads)]
    for thread in started:
        thread.start()
    yield desk
    for thread in started:
        thread.join()


def test_new_kind_is_one_file_and_one_row(workshop: Workshop, naps: Naps) -> None:
    task_id = naps.ask(dream="sheep")
    naps.end()
    TaskDesk(worker_of(workshop), Queue.LIGHT).run_waiting()
    task = naps.row(task_id)
    assert (task.result, task.error, task.attempts) == ({"dream": "sheep"}, None, 1)
    assert (task.claimed_by, task.lease_expires_at) == (None, None)
    assert list((workshop.folder / "work" / "tasks").iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_runner_of_every_kind_can_be_called(name: str) -> None:
    assert callable(importlib.import_module(KINDS[name].runner).run)


def test_failure_of_the_runner_is_final(workshop: Workshop, naps: Naps) -> None:
    task_id = naps.ask(dream="fail")
    naps.end()
    TaskDesk(worker_of(workshop), Queue.LIGHT).run_waiting()
    task = naps.row(task_id)
    assert task.error is not None and task.attempts == 1
    assert (task.error["code"], task.error["param"]) == ("too_loud", "bed")


def test_crash_is_tried_again_and_fails_after_the_last_attempt(
    workshop: Workshop, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    task_id = naps.ask(dream="crash")
    naps.end()
    desk = TaskDesk(worker_of(workshop), Queue.LIGHT)

    def has_ended() -> bool:
        desk.run_waiting()
        return naps.row(task_id).finished_at is not None

    wait_until(has_ended, "the last attempt has crashed")
    task = naps.row(task_id)
    assert task.error is not None
    assert (task.error["code"], task.attempts) == ("task_crashed", 3)
    assert "a nightmare" in task.error["message"]
    assert [start.split()[1] for start in naps.starts()] == ["1", "3", "5"]


def test_attempt_that_takes_too_long_ends_the_task(workshop: Workshop) -> None:
    with nap_kind(limit_seconds=0.2):
        naps = Naps(workshop)
        task_id = naps.ask()
        TaskDesk(worker_of(workshop), Queue.LIGHT).run_waiting()
        task = naps.row(task_id)
    assert task.error is not None and task.error["code"] == "task_timed_out"


def test_attempt_that_ignores_its_limit_loses_its_claim(workshop: Workshop) -> None:
    with nap_kind(limit_seconds=0.1, lease_seconds=0.4, max_attempts=1):
        naps = Naps(workshop)
        task_id = naps.ask(dream="sleepwalk")
        with running(worker_of(workshop)):
            naps.wait_for_start("nap")

            def is_lost() -> bool:
                housekeeping.rescue_work(workshop.database)
                return naps.row(task_id).finished_at is not None

            wait_until(is_lost, "its lease expires")
            naps.end()
        task = naps.row(task_id)
    assert task.result is None
    assert task.error is not None and task.error["code"] == "worker_lost"


@pytest.mark.parametrize("dream", ["sheep", "wait"])
def test_stopping_worker_gives_its_task_back_without_counting_the_attempt(
    workshop: Workshop, naps: Naps, dream: str
) -> None:
    task_id = naps.ask(dream=dream)
    worker = worker_of(workshop)
    with running(worker):
        naps.wait_for_start("nap")
        worker.stopping.set()
    task = naps.row(task_id)
    assert (task.finished_at, task.claimed_by, task.attempts) == (None, None, 0)


def test_deleted_task_ends_its_attempt_and_leaves_nothing(workshop: Workshop, naps: Naps) -> None:
    naps.ask()
    with running(worker_of(workshop)):
        naps.wait_for_start("nap")
        with workshop.database.writing() as session:
            tasks.forget_tasks(session, Task.kind == "nap")
    with workshop.database.reading() as session:
        assert session.query(Task).count() == 0


def test_full_kind_leaves_threads_to_the_others(workshop: Workshop, naps: Naps) -> None:
    with nap_kind(at_once=1):
        first, second = naps.ask("first"), naps.ask("second")
        worker = worker_of(workshop)
        with running(worker) as desk:
            naps.wait_for_start("first")
            assert not desk.run_next()  # this thread is free for another kind
            naps.end("second")
            assert naps.starts("second") == []
            naps.end("first")
    assert naps.row(first).finished_at is not None
    assert naps.row(second).finished_at is not None


def test_tasks_and_jobs_take_turns_on_the_device(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    jobs = ["job 1", "job 2"]

    def train_next_job(worker: Worker) -> bool:
        if not jobs:
            return False
        done.append(jobs.pop(0))
        return True

    monkeypatch.setattr("worker.process.app.train_next_job", train_next_job)
    with nap_kind(Queue.DEVICE):
        naps = Naps(workshop)
        ids = [naps.ask(f"nap {number}") for number in range(4)]
        for number in range(4):
            naps.end(f"nap {number}")
        monkeypatch.setattr(
            "worker.tasks.desk.run_attempt", lambda worker, claim: done.append(claim.id)
        )
        device_work(worker_of(workshop))()
    assert done == [ids[0], "job 1", ids[1], "job 2", ids[2], ids[3]]


def test_no_transaction_is_begun_for_a_queue_without_a_kind_that_may_run(
    workshop: Workshop, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = TaskDesk(worker_of(workshop), Queue.DEVICE)
    monkeypatch.setattr("worker.tasks.desk.kinds_of", lambda queue: [])
    monkeypatch.setattr(workshop.database, "writing", lambda: pytest.fail("it writes"))
    assert not desk.run_next()


def test_a_worker_leaves_the_tasks_of_another_queue(workshop: Workshop, naps: Naps) -> None:
    task_id = naps.ask()
    assert not TaskDesk(worker_of(workshop), Queue.DEVICE).run_next()
    assert Work("nap", task_id).queue is Queue.LIGHT
