"""What everything in a worker process works with."""

from dataclasses import dataclass
from threading import Event

from core.records.database import Database
from core.storage.blobs import BlobStore
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Worker:
    """Settings, database and storage. `stopping` is set once the process is asked to end."""

    settings: WorkerSettings
    database: Database
    store: BlobStore
    stopping: Event
