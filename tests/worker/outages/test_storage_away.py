"""Storage that is away for a while: an attempt waits, and no job ends by it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import pytest

from core.errors import NotFound, Unavailable
from core.jobs.state import JobStatus
from core.records import tasks
from core.records.resume_states import states_of
from core.records.tables import Task
from core.storage.blobs import STORAGE_UNAVAILABLE, BlobStore
from core.tasks.kinds import Queue
from tests.worker.nap import nap_kind
from tests.worker.naps import Naps
from tests.worker.simulated_child import Simulation
from tests.worker.workshop import Workshop, wait_until, worker_here
from worker.context import Worker
from worker.outages import retrying_store
from worker.outages.retrying_store import RetryingStore
from worker.tasks.desk import TaskDesk
from worker.training import attempt as train_module

KEY = "files/file-abc"


@dataclass
class Away:
    """Makes a real store unavailable while `is_away`, and counts who asked."""

    is_away: bool = False
    asked: list[str] = field(default_factory=list)

    def between(self, store: BlobStore) -> Any:
        away = self

        class Gate:
            def __getattr__(self, name: str) -> Callable[..., Any]:
                def call(*arguments: Any) -> Any:
                    away.asked.append(name)
                    if away.is_away:
                        raise Unavailable("Storage is away.", code=STORAGE_UNAVAILABLE)
                    return getattr(store, name)(*arguments)

                return call

        return Gate()


@pytest.fixture
def away() -> Away:
    return Away()


@pytest.fixture
def workshop(workshop: Workshop, away: Away) -> Workshop:
    return replace(workshop, store=away.between(workshop.store))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(total_steps=20)
    monkeypatch.setattr(train_module, "launch", simulation.launch)
    return simulation


def test_every_move_waits_until_storage_is_back(
    workshop: Workshop, away: Away, tmp_path: Path
) -> None:
    store = RetryingStore(workshop.store, lambda: False)
    (tmp_path / "source").write_bytes(b"content")
    moves: list[Callable[[], object]] = [
        lambda: store.write_file(KEY, tmp_path / "source"),
        lambda: b"".join(store.read(KEY)),
        lambda: store.size(KEY),
        lambda: store.fetch(KEY, tmp_path / "target"),
        lambda: store.exists(KEY),
        lambda: store.sweep(3600),
        lambda: store.delete(KEY),
    ]
    for move in moves:
        away.is_away = True
        away.asked.clear()
        back = Timer(0.15, setattr, [away, "is_away", False])
        back.start()
        move()
        back.join()
        assert len(away.asked) > 1
    assert (tmp_path / "target").read_bytes() == b"content"
    assert not store.exists(KEY)


def test_other_errors_and_one_stream_of_chunks_are_not_repeated(
    workshop: Workshop, away: Away
) -> None:
    store = RetryingStore(workshop.store, lambda: False)
    with pytest.raises(NotFound):
        store.size(KEY)
    assert away.asked == ["size"]
    away.is_away = True
    with pytest.raises(Unavailable):
        store.write(KEY, [b"x"])
    assert away.asked == ["size", "write"]


@pytest.mark.parametrize("how", ["too long", "stopping"])
def test_patience_ends(
    how: str, workshop: Workshop, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    away.is_away = True
    stopping = Event()
    store = RetryingStore(workshop.store, stopping.is_set)
    began = time.monotonic()
    if how == "stopping":
        monkeypatch.setattr(retrying_store, "FIRST_PAUSE_SECONDS", 60)
        Timer(0.1, stopping.set).start()
    else:
        monkeypatch.setattr(retrying_store, "RETRY_SECONDS", 0.1)
    with pytest.raises(Unavailable):
        store.size(KEY)
    assert 0.1 <= time.monotonic() - began < 20


def test_attempt_that_should_stop_asks_once(workshop: Workshop, away: Away) -> None:
    away.is_away = True
    with pytest.raises(Unavailable):
        RetryingStore(workshop.store, lambda: True).delete(KEY)
    assert away.asked == ["delete"]


def test_short_absence_is_not_noticed_by_the_job(
    workshop: Workshop, away: Away, children: Simulation
) -> None:
    job_id = workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        away.is_away = True
        wait_until(lambda: away.asked.count("write_file") > 1, "the bundle cannot be stored")
        away.is_away = False
        job = workshop.wait_for_end(job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    assert children.started_at == [0]


def test_long_absence_gives_the_job_back_and_its_states_stay(
    workshop: Workshop, away: Away, children: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absence says nothing about a saved state: it must not be dropped as a missing one is."""
    children.total_steps = 10**9
    job_id = workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        workshop.pause(job_id)
        wait_until(lambda: workshop.job(job_id).status == JobStatus.PAUSED, "the job is paused")
    (saved,) = states_of(workshop.job(job_id))
    children.total_steps = saved.step + 5

    monkeypatch.setattr(retrying_store, "RETRY_SECONDS", 0.1)
    away.is_away = True
    workshop.resume(job_id)
    with worker_here(workshop):
        wait_until(lambda: str(workshop.messages(job_id)).count("is away") >= 2, "it gives up")
        assert workshop.job(job_id).status == JobStatus.QUEUED
        assert workshop.job(job_id).attempts <= 1
        assert states_of(workshop.job(job_id)) == (saved,)
        away.is_away = False
        job = workshop.wait_for_end(job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    assert children.started_at == [0, saved.step]


def test_job_that_is_cancelled_during_an_absence_frees_its_worker(
    workshop: Workshop, away: Away, children: Simulation
) -> None:
    job_id, next_id = workshop.submit(), workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        away.is_away = True
        wait_until(lambda: away.asked.count("write_file") > 1, "the bundle cannot be stored")
        workshop.cancel(job_id)
        wait_until(lambda: workshop.job(next_id).attempts == 1, "the next job is claimed", 20)
        away.is_away = False
        assert workshop.wait_for_end(next_id).status == JobStatus.SUCCEEDED
    assert workshop.job(job_id).status == JobStatus.CANCELLED


@pytest.fixture
def worker(workshop: Workshop) -> Worker:
    return Worker(workshop.settings(), workshop.database, workshop.store, Event())


def test_absence_beyond_the_limit_of_a_task_is_retried_and_named_in_the_end(
    workshop: Workshop, away: Away, worker: Worker
) -> None:
    away.is_away = True
    with nap_kind(limit_seconds=0.3):
        naps = Naps(workshop)
        task_id = naps.ask(dream="search")
        naps.end()
        desk = TaskDesk(worker, Queue.LIGHT)

        def has_ended() -> bool:
            desk.run_waiting()
            return naps.row(task_id).finished_at is not None

        wait_until(has_ended, "no attempt finds storage")
        task = naps.row(task_id)
    assert task.error is not None
    assert (task.error["code"], task.attempts) == (STORAGE_UNAVAILABLE, 3)
    assert task.error["message"] == "Storage is away."
    assert away.asked.count("exists") > task.attempts, "each attempt asks again and again"


@pytest.mark.parametrize("event", ["back", "stopping", "deleted"])
def test_task_waits_for_storage_until_it_is_back_or_the_attempt_ends(
    workshop: Workshop, away: Away, worker: Worker, event: str
) -> None:
    away.is_away = True
    with nap_kind():
        naps = Naps(workshop)
        task_id = naps.ask(dream="search")
        naps.end()
        thread = Thread(target=TaskDesk(worker, Queue.LIGHT).run_next)
        thread.start()
        wait_until(lambda: away.asked.count("exists") > 1, "the task asks again")
        match event:
            case "back":
                away.is_away = False
            case "stopping":
                worker.stopping.set()
            case _:
                with workshop.database.writing() as session:
                    tasks.forget_tasks(session, Task.id == task_id)
        thread.join(20)
        assert not thread.is_alive()
    if event == "back":
        assert naps.row(task_id).result == {"dream": "found"}
    elif event == "stopping":
        assert (naps.row(task_id).finished_at, naps.row(task_id).attempts) == (None, 0)
