"""Shows other processes that this worker is alive: one row, refreshed with every heartbeat."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from core.records import workers
from core.records.database import Database
from core.tasks.kinds import Queue
from worker.downloads.local_bases import report_local_bases
from worker.process.calibration import Calibrator
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


@contextmanager
def presence(
    database: Database,
    settings: WorkerSettings,
    device: str,
    queue: Queue,
    calibrator: Calibrator | None = None,
) -> Iterator[None]:
    """Keep the worker's row, with the calibration of its device, and its report about bases."""
    ended = threading.Event()

    def refresh() -> None:
        while True:
            try:
                report_local_bases(database, settings)
                measured = None if calibrator is None else calibrator.found
                with database.writing() as session:
                    workers.worker_seen(session, settings.worker_id, device, queue, measured)
            except SQLAlchemyError as error:
                logger.warning("The worker's row could not be refreshed: %s", error)
            if ended.wait(settings.beat_seconds):
                return

    thread = threading.Thread(target=refresh, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        try:
            with database.writing() as session:
                workers.worker_gone(session, settings.worker_id)
        except SQLAlchemyError as error:  # housekeeping deletes it later
            logger.warning("The worker's row could not be removed: %s", error)
