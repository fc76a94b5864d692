"""What an export needs of the attempt at its task, whose module is above this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from core.records.database import Database
from core.records.tasks import TaskClaim
from core.storage.blobs import BlobStore
from worker.settings import WorkerSettings


class Workplace(Protocol):
    """`worker.tasks.attempt.Attempt`."""

    @property
    def claim(self) -> TaskClaim: ...
    @property
    def settings(self) -> WorkerSettings: ...
    @property
    def database(self) -> Database: ...
    @property
    def store(self) -> BlobStore: ...
    @property
    def folder(self) -> Path: ...
    @property
    def should_stop(self) -> Callable[[], bool]: ...
