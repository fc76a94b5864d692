"""What the runner of a kind of task is given, and how it ends.

A kind's module has `run(attempt: Attempt) -> Spec`, which returns the result. It raises a
`TunesmithError` when the task has failed for good, and `Interrupted` soon after `should_stop` is
true. Any other exception is a crash: the task is tried again, up to the last attempt of its kind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.records.database import Database
from core.records.tasks import TaskClaim
from core.storage.blobs import BlobStore
from worker.settings import WorkerSettings

TASK_FOLDER = "tasks"
"""In the work folder: `tasks/<id>.<token>/` for each attempt."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at one task."""

    claim: TaskClaim
    settings: WorkerSettings
    database: Database
    store: BlobStore
    folder: Path
    """An empty folder of this attempt, which is removed at its end."""
    should_stop: Callable[[], bool]
    """The worker stops, the claim is lost, or the time of the kind is over."""

    @property
    def payload(self) -> dict[str, Any]:
        return self.claim.payload
