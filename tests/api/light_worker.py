"""A light worker beside the API of a test: it looks for tasks all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.tasks.kinds import Queue
from tests.api.live import Api
from worker.context import Worker
from worker.settings import WorkerSettings
from worker.tasks.desk import TaskDesk


@contextmanager
def light_worker_of(api: Api) -> Iterator[Worker]:
    """Run waiting tasks, as a worker would that every message reaches, until the block ends."""
    settings = WorkerSettings(
        database_url=str(api.database.engine.url),
        broker_url=f"folder://{api.folder}/broker",
        storage_folder=api.folder / "storage",
        work_folder=api.folder / "work",
        check_seconds=0.05,
    )
    worker = Worker(settings, api.database, api.state.store, threading.Event())

    def work() -> None:
        desk = TaskDesk(worker, Queue.LIGHT)
        while not worker.stopping.wait(0.02):
            desk.run_waiting()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stopping.set()
        thread.join()
