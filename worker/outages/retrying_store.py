"""Storage for a worker: a short outage costs time, not the run."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TypeVar

from core.errors import Unavailable
from core.storage.blobs import CHUNK_BYTES, Blob, BlobStore
from worker.outages.commit import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, RETRY_SECONDS

T = TypeVar("T")

logger = logging.getLogger(__name__)


class RetryingStore:
    """A `BlobStore` that asks again while storage is unavailable, for as long as `commit` does.

    Raises the last Unavailable after that, or once the worker has been asked to stop.
    """

    def __init__(self, store: BlobStore, stopping: Event) -> None:
        self._store = store
        self._stopping = stopping

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        return self._store.write(key, chunks)  # the chunks come only once

    def write_file(self, key: str, path: Path) -> Blob:
        return self._retried(partial(self._store.write_file, key, path))

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        return self._retried(partial(self._store.read, key, chunk_bytes))

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
        deadline = monotonic() + RETRY_SECONDS
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except Unavailable as error:
                if monotonic() > deadline or self._stopping.wait(pause_seconds):
                    raise
                logger.warning("Storage is unavailable; trying again: %s", error)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
