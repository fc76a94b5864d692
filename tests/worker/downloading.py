"""Downloads of one small base, and the workers and jobs around them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.catalog.base_files import look_for
from core.records import worker_bases, workers
from core.records.base_downloads import newest_download, request_download
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Task
from core.spec.base_files import BaseFiles
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.tasks.kinds import Queue
from tests.worker.workshop import ROW, Workshop, wait_until
from worker.context import Worker
from worker.downloads.local_bases import report_local_bases
from worker.settings import WorkerSettings
from worker.tasks.desk import TaskDesk

BASE = BaseModelSpec(id="acme/small", source="acme/small")


def request(workshop: Workshop, base: BaseModelSpec = BASE) -> str:
    with workshop.database.writing() as session:
        ensure_project(session)
        return request_download(session, DEFAULT_PROJECT, base).id


def run_all(worker: Worker) -> Task:
    """Run the download to its end and return it."""
    desk = TaskDesk(worker, Queue.LIGHT)

    def has_ended() -> bool:
        desk.run_waiting()
        return newest(worker).finished_at is not None

    wait_until(has_ended, "the download has ended")
    return newest(worker)


def newest(worker: Worker, base: BaseModelSpec = BASE) -> Task:
    with worker.database.reading() as session:
        task = newest_download(session, base)
    assert task is not None
    return task


def failure(worker: Worker) -> tuple[str, str]:
    error = run_all(worker).error
    assert error is not None
    return error["code"], error["message"]


@contextmanager
def in_background(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=TaskDesk(worker, Queue.LIGHT).run_waiting)
    thread.start()
    yield
    thread.join()


def submit(workshop: Workshop, base: BaseModelSpec = BASE) -> str:
    """Create a job on the base, which is not told about any download."""
    return workshop.create(JobSpec(base=base, seed=1), workshop.upload(ROW % 1))


def declare(workshop: Workshop, *bases: BaseModelSpec) -> None:
    with workshop.database.writing() as session:
        worker_bases.declare_bases(session, bases)


def device_worker(workshop: Workshop, worker_id: str = "worker-device") -> WorkerSettings:
    """Let a device worker of this machine report once, as its presence does."""
    settings = workshop.settings(worker_id)
    report_local_bases(workshop.database, settings)
    with workshop.database.writing() as session:
        workers.worker_seen(session, worker_id, "cpu", Queue.DEVICE)
    return settings


def found(worker: Worker) -> BaseFiles:
    return look_for(BASE, worker.settings.hub_folder, may_download=True)
