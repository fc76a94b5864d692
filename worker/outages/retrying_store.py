"""Storage for one attempt: a short outage costs time, not the attempt."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from core.errors import Unavailable
from core.storage.blobs import CHUNK_BYTES, Blob, BlobStore
from worker.coroutines import CHECK_SECONDS
from worker.outages.commit import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, RETRY_SECONDS

T = TypeVar("T")

logger = logging.getLogger(__name__)


class RetryingStore:
    """A `BlobStore` that retries while storage is unavailable, for as long as `commit` does.

    Raises the last Unavailable after that, or soon after `should_stop` is true.
    """

    def __init__(self, store: BlobStore, should_stop: Callable[[], bool]) -> None:
        self._store = store
        self._should_stop = should_stop

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        return self._store.write(key, chunks)  # the chunks can be read only once

    def write_file(self, key: str, path: Path) -> Blob:
        return self._retried(partial(self._store.write_file, key, path))

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        return self._retried(partial(self._store.read, key, chunk_bytes))

    def read_range(self, key: str, start: int, length: int) -> Iterator[bytes]:
        return self._retried(partial(self._store.read_range, key, start, length))

    def size(self, key: str) -> int:
        return self._retried(partial(self._store.size, key))

    def fetch(self, key: str, target: Path) -> None:
        self._retried(partial(self._store.fetch, key, target))

    def delete(self, key: str) -> None:
        self._retried(partial(self._store.delete, key))

    def exists(self, key: str) -> bool:
        return self._retried(partial(self._store.exists, key))

    def sweep(self, older_than_seconds: float) -> None:
        self._retried(partial(self._store.sweep, older_than_seconds))

    def check(self) -> None:
        self._store.check()

    def _retried(self, action: Callable[[], T]) -> T:
        give_up_at = time.monotonic() + RETRY_SECONDS
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except Unavailable as error:
                if time.monotonic() > give_up_at or self._stops_within(pause_seconds):
                    raise
                logger.warning("Storage is unavailable; retrying: %s", error)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _stops_within(self, seconds: float) -> bool:
        """Sleep for so long; return True as soon as the attempt should stop."""
        end = time.monotonic() + seconds
        while not self._should_stop():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, CHECK_SECONDS))
        return True
