"""Blobs in a folder: one file per key, complete as soon as it exists."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from core.errors import Unavailable
from core.storage.blobs import (
    CHUNK_BYTES,
    STORAGE_UNAVAILABLE,
    Blob,
    checked_key,
    chunks_of,
    missing,
    range_of,
)


class LocalBlobStore:
    """A `BlobStore` in one folder of one filesystem; safe for many processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / ".incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        path = self._path(key)
        temporary = self._incoming / uuid4().hex
        digest = hashlib.sha256()
        length = 0
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    length += file.write(chunk)
                file.flush()
                # Read-only, because `fetch` creates hard links to this file.
                os.fchmod(file.fileno(), 0o440)
                os.fsync(file.fileno())
            _make_folder_durably(path.parent)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return Blob(key, length, digest.hexdigest())

    def write_file(self, key: str, path: Path) -> Blob:
        return self.write(key, chunks_of(path, CHUNK_BYTES))

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        self.size(key)  # raises for a missing blob now, not at the first chunk
        return chunks_of(self._path(key), chunk_bytes)

    def read_range(self, key: str, start: int, length: int) -> Iterator[bytes]:
        self.size(key)  # as in `read`
        return range_of(self._path(key), start, length)

    def size(self, key: str) -> int:
        if not self.exists(key):
            raise missing(key)
        return self._path(key).stat().st_size

    def fetch(self, key: str, target: Path) -> None:
        source = self._path(key)
        if not self.exists(key):
            raise missing(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid4().hex}")
        try:
            try:
                os.link(source, temporary)
            except OSError:  # another filesystem, or one without hard links
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            # POSIX rename does nothing if both names already link to the same file.
            temporary.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def sweep(self, older_than_seconds: float) -> None:
        oldest_kept = time.time() - older_than_seconds
        # The API fetches uploads into `.checking-*` folders.
        for path in [*self._incoming.iterdir(), *self._folder.glob(".checking-*")]:
            with suppress(OSError):  # its writer or another sweep removed it
                if path.stat().st_mtime >= oldest_kept:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def check(self) -> None:
        if not self._incoming.is_dir():
            raise Unavailable(
                "The storage folder is missing; check that its disk is mounted.",
                code=STORAGE_UNAVAILABLE,
            )

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)


def _make_folder_durably(folder: Path) -> None:
    """Create a folder and its parents, and sync each to disk."""
    if not folder.is_dir():
        _make_folder_durably(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
