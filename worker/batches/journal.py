"""Stores answered lines while a batch runs, so that a killed worker loses few of them.

Lines are collected in two local files, and stored from time to time as a part: two blobs, and a row
that counts them. A lost line is answered again, because no part has its number.
"""

import time
from pathlib import Path

from core.records.batch_progress import Part, Tokens, add_part
from core.records.database import Database
from core.records.tasks import TaskClaim
from core.spec.ids import BatchId
from core.storage.blobs import BlobStore
from worker.batches.lines import AnsweredLine
from worker.outages.commit import commit

FLUSH_LINES = 1000
FLUSH_BYTES = 32 << 20
FLUSH_SECONDS = 2.0
LOST_SHARE = 0.01
"""Of the time of an attempt, that may be lost with its worker; limits the number of parts."""


class Journal:
    """The answered lines of one attempt. Every method may block for the disk or the database."""

    def __init__(
        self,
        claim: TaskClaim,
        database: Database,
        store: BlobStore,
        folder: Path,
        batch_id: BatchId,
        parts: int,
    ) -> None:
        """`folder` is for local files; `parts` is the number of parts of earlier attempts."""
        self._claim = claim
        self._database = database
        self._store = store
        self._batch_id = batch_id
        self._number = parts
        self._began_at = self._stored_at = time.monotonic()
        self._files = {
            is_error: folder / f"part.{'error' if is_error else 'output'}"
            for is_error in (False, True)
        }
        self._begin()

    @property
    def is_due(self) -> bool:
        """Whether enough lines or time have passed for another part."""
        now = time.monotonic()
        pause_seconds = max(FLUSH_SECONDS, LOST_SHARE * (now - self._began_at))
        return bool(self._lines) and (
            len(self._lines) >= FLUSH_LINES
            or self._bytes >= FLUSH_BYTES
            or now - self._stored_at >= pause_seconds
        )

    def add(self, line: AnsweredLine) -> None:
        """Collect a line."""
        with self._files[line.is_error].open("ab") as file:
            self._bytes += file.write(line.text)
        self._lines.append(line.number)
        self._completed += not line.is_error
        self._tokens.add(line.tokens)

    def store(self) -> None:
        """Store the collected lines as a part; StaleClaim if the claim has ended."""
        if not self._lines:
            return
        part = Part(
            number=self._number,
            lines=self._lines,
            output_key=self._stored(self._files[False]),
            error_key=self._stored(self._files[True]),
            completed=self._completed,
            tokens=self._tokens,
        )
        commit(self._database, lambda session: add_part(session, self._claim, self._batch_id, part))
        self._number += 1
        self._begin()

    def _begin(self) -> None:
        for path in self._files.values():
            path.unlink(missing_ok=True)
        self._lines: list[int] = []
        self._completed = self._bytes = 0
        self._tokens = Tokens()
        self._stored_at = time.monotonic()

    def _stored(self, path: Path) -> str | None:
        """Store a local file under a key that no other attempt uses; return the key."""
        if not path.exists():
            return None
        key = f"batches/{self._batch_id}/{self._claim.token}.{self._number}{path.suffix}"
        return self._store.write_file(key, path).key
