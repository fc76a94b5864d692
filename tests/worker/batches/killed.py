"""Kills an attempt at a batch before or after any of its writes, as `kill -9` would."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from core.records import files, tasks
from core.records.batches import BATCH, NewBatch, create_batch
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Batch, File
from core.spec.batch import BatchModel
from core.storage.blobs import Blob, BlobStore
from tests.api.batch_files import CHAT, as_file
from tests.worker.workshop import TINY, Workshop
from worker.batches import journal
from worker.outages.commit import commit
from worker.tasks import batch as runner
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
        self._lock = threading.Lock()

    def around(self, write: Callable[[], T]) -> T:
        self._pass()
        result = write()
        self._pass()
        return result

    def _pass(self) -> None:
        with self._lock:
            if self.passed == self.point:
                raise Killed
            self.passed += 1


class FatefulStore:
    """A store whose writes may be the last thing that the attempt does."""

    def __init__(self, store: BlobStore, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def write_file(self, key: str, path: Path) -> Blob:
        return self._fate.around(lambda: self._store.write_file(key, path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def create(workshop: Workshop, lines: Sequence[dict[str, Any]]) -> str:
    """Create a batch as the API does; return its id."""
    file_id, key = files.new_file_key()
    blob = workshop.store.write(key, [as_file(lines)])
    with workshop.database.writing() as session:
        ensure_project(session)
        files.add_file(
            session,
            file_id=file_id,
            project_id=DEFAULT_PROJECT,
            filename="requests.jsonl",
            purpose="batch",
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=key,
            report=None,
        )
        new = NewBatch(
            project_id=DEFAULT_PROJECT,
            endpoint=CHAT,
            input_file_id=file_id,
            completion_window="24h",
            window_seconds=86_400,
            total=len(lines),
            model=TINY.id,
            user_metadata=None,
            output_expires_seconds=None,
        )
        model = BatchModel(id=TINY.id, base=TINY, adapter=None)
        return create_batch(session, new, key, {TINY.id: model})[0].id


def attempt_until(workshop: Workshop, point: int | None) -> int | None:
    """Claim the batch and run it up to a point; return the points passed, None if it ended.

    A killed attempt is rescued, as housekeeping does.
    """
    with workshop.database.writing() as session:
        claim = tasks.claim_next(session, "worker-victim", [BATCH])
    assert claim is not None
    fate = Fate(point)
    folder = workshop.folder / f"{claim.id}.{claim.token}"
    folder.mkdir()
    attempt = Attempt(
        claim,
        workshop.settings(),
        workshop.database,
        FatefulStore(workshop.store, fate),
        folder,
        lambda: False,
    )
    try:
        with nullcontext() if point is None else fateful_commits(fate):
            result = runner.run(attempt)
            fate.around(
                lambda: commit(workshop.database, lambda s: tasks.succeed(s, claim, result))
            )
    except Killed:
        with workshop.database.writing() as session:
            tasks.rescue_expired(session, worker_id="worker-victim")
        return None if has_ended(workshop, claim.id) else fate.passed
    return None


def points_of(workshop: Workshop) -> int:
    """Run the batch undisturbed; return the number of points where it could be killed."""
    with patch.object(Fate, "_pass", autospec=True) as passed:
        assert attempt_until(workshop, -1) is None
    return passed.call_count


@contextmanager
def fateful_commits(fate: Fate) -> Iterator[None]:
    def fateful(database: Any, action: Callable[[Any], T]) -> T:
        return fate.around(lambda: commit(database, action))

    with patch.object(journal, "commit", fateful), patch.object(runner, "commit", fateful):
        yield


def has_ended(workshop: Workshop, task_id: str) -> bool:
    with workshop.database.reading() as session:
        task = tasks.find_task(session, DEFAULT_PROJECT, BATCH, task_id)
    return task is not None and task.finished_at is not None


def row(workshop: Workshop, batch_id: str) -> Batch:
    with workshop.database.reading() as session:
        return get_owned(session, Batch, DEFAULT_PROJECT, batch_id)


def ids_in(workshop: Workshop, file_id: str | None) -> Counter[str]:
    """The ids of the answered lines in a file, with their number."""
    if file_id is None:
        return Counter()
    with workshop.database.reading() as session:
        file = get_owned(session, File, DEFAULT_PROJECT, file_id)
    content = b"".join(workshop.store.read(file.blob_key))
    return Counter(json.loads(line)["custom_id"] for line in content.splitlines())
