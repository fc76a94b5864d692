"""The objects that all code of a worker process shares."""

from dataclasses import dataclass
from threading import Event

from core.records.database import Database
from core.storage.blobs import BlobStore
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Worker:
    """Settings, database and storage. `stopping` is set once the process is asked to stop."""

    settings: WorkerSettings
    database: Database
    store: BlobStore
    stopping: Event
