"""The interface between the desk and the runner of a kind of task.

A kind's module has `run(attempt: Attempt) -> Spec`, which returns the result. It raises a
`TunesmithError` if the task has failed for good, and `Interrupted` soon after `should_stop` is
true. The task is retried, up to the last attempt of its kind, after any other exception (a crash)
and after Unavailable `storage_unavailable`, which `store` raises in a long outage, or
`hub_unavailable`.
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
    """Retries until `should_stop` is true."""
    folder: Path
    """An empty folder for this attempt, removed at its end."""
    should_stop: Callable[[], bool]
    """Whether the worker is stopping, the claim is lost, or the kind's time limit is exceeded."""

    @property
    def payload(self) -> dict[str, Any]:
        return self.claim.payload
