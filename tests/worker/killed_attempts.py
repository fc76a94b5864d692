"""Kills an attempt at a task before or after any of its writes, as `kill -9` would."""

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from unittest.mock import patch

from core.records import tasks
from core.records.projects import DEFAULT_PROJECT
from core.storage.blobs import Blob, BlobStore
from core.tasks.kinds import KINDS
from tests.worker.workshop import Workshop
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone: no handler of errors runs."""


class Fate:
    """Counts the writes of an attempt and kills it at one of them; `None`: never.

    Write number n has two points: 2n before it, and 2n + 1 after it.
    """

    def __init__(self, point: int | None) -> None:
        self.point = point
        self.passed = 0
        self.has_struck = False
        self._lock = threading.Lock()

    def around(self, write: Callable[[], T]) -> T:
        self._pass()
        result = write()
        self._pass()
        return result

    def _pass(self) -> None:
        with self._lock:
            if self.passed == self.point:
                self.has_struck = True
                raise Killed
            self.passed += 1


class FatefulStore:
    """A store whose writes may be the last thing that the attempt does."""

    def __init__(self, store: BlobStore, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def write_file(self, key: str, path: Path) -> Blob:
        return self._fate.around(lambda: self._store.write_file(key, path))

    def delete(self, key: str) -> None:
        if not self._fate.has_struck:  # the dead clean nothing up
            self._store.delete(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def attempt_task_until(
    workshop: Workshop, kind: str, journal: ModuleType, point: int | None
) -> int | None:
    """Claim the task and work up to a point; return the points passed, None if it ended.

    `journal` writes, and perhaps the runner. A killed attempt is rescued, as housekeeping does.
    """
    with workshop.database.writing() as session:
        claim = tasks.claim_next(session, "worker-victim", [kind])
    assert claim is not None
    fate = Fate(point)
    folder = workshop.folder / f"{claim.id}.{claim.token}"
    folder.mkdir()
    store: Any = FatefulStore(workshop.store, fate)
    attempt = Attempt(claim, workshop.settings(), workshop.database, store, folder, lambda: False)
    runner = importlib.import_module(KINDS[kind].runner)
    try:
        with nullcontext() if point is None else _fateful_commits(fate, [journal, runner]):
            result = runner.run(attempt)
            fate.around(
                lambda: commit(workshop.database, lambda s: tasks.succeed(s, claim, result))
            )
    except Killed:
        with workshop.database.writing() as session:
            tasks.rescue_expired(session, worker_id="worker-victim")
            task = tasks.find_task(session, DEFAULT_PROJECT, kind, claim.id)
        return None if task is not None and task.finished_at is not None else fate.passed
    return None


def points_of(attempt: Callable[[int], int | None]) -> int:
    """Work undisturbed; return the number of points where the attempt could be killed."""
    with patch.object(Fate, "_pass", autospec=True) as passed:
        assert attempt(-1) is None
    return passed.call_count


@contextmanager
def _fateful_commits(fate: Fate, writers: Sequence[ModuleType]) -> Iterator[None]:
    def fateful(database: Any, action: Callable[[Any], T]) -> T:
        return fate.around(lambda: commit(database, action))

    with ExitStack() as patches:
        for writer in writers:
            if hasattr(writer, "commit"):
                patches.enter_context(patch.object(writer, "commit", fateful))
        yield
