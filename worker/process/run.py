"""The main functions of the worker processes, one per queue."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from core.records.database import Database
from core.sandbox.availability import log_availability
from core.storage.open import open_store
from core.tasks.kinds import Queue
from worker.context import Worker
from worker.launch import warm_up
from worker.process.app import serve
from worker.process.calibration import Calibrator
from worker.process.presence import presence
from worker.settings import WorkerSettings


def run_device_worker() -> None:
    """Warm up, then run jobs and tasks that need the device until SIGTERM or SIGINT."""
    settings = _start()
    device = warm_up()
    calibrator = Calibrator(
        settings.work_folder, settings.threads, settings.calibrate_after_seconds
    )
    with (
        _worker(settings) as worker,
        calibrator.running(),
        presence(worker.database, settings, device, Queue.DEVICE, calibrator),
    ):
        serve(worker, Queue.DEVICE, calibrator)


def run_light_worker() -> None:
    """Run short tasks until SIGTERM or SIGINT.

    The worker counts as alive while it warms up, so the service is ready before masks are.
    """
    settings = _start()
    log_availability()
    with _worker(settings) as worker, presence(worker.database, settings, "cpu", Queue.LIGHT):
        warm_up()
        serve(worker, Queue.LIGHT)


def _start() -> WorkerSettings:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every line of a batch
    return WorkerSettings()


@contextmanager
def _worker(settings: WorkerSettings) -> Iterator[Worker]:
    database = Database(settings.database_url)
    store = open_store(settings.storage_folder, settings.storage_url)
    yield Worker(settings, database, store, Event())
    database.close()
