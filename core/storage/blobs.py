"""The storage of files: uploads, bundles and archives, each a blob under a key.

Tunesmith generates the keys (`files/file-abc`, `bundles/ftjob-x/3/final.zip`); they never contain
user input. A blob is written once and atomically.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import InvalidRequest, NotFound

CHUNK_BYTES = 1 << 20

STORAGE_UNAVAILABLE = "storage_unavailable"
"""The code of the Unavailable errors that a store raises."""

_KEY = re.compile(r"[a-z]{1,32}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){1,8}", re.ASCII)


@dataclass(frozen=True)
class Blob:
    """A stored file; `sha256` is the hex digest of its content."""

    key: str
    bytes: int
    sha256: str


class BlobStore(Protocol):
    """Blobs by key. All that read a blob raise NotFound for a key without one.

    A remote store raises Unavailable `storage_unavailable` while it cannot be reached.
    """

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        """Store the chunks, with one in memory at a time; nothing is stored after an error."""
        ...

    def write_file(self, key: str, path: Path) -> Blob:
        """Store a copy of a local file."""
        ...

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the content in chunks of at most `chunk_bytes`."""
        ...

    def read_range(self, key: str, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from `start` on, which the blob must have."""
        ...

    def size(self, key: str) -> int:
        """Return the length in bytes."""
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Copy or link the content to `target`, replacing any file. The file is read-only."""
        ...

    def delete(self, key: str) -> None:
        """Delete the blob if it exists."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the key has a blob."""
        ...

    def sweep(self, older_than_seconds: float) -> None:
        """Delete partial writes of killed processes that were not modified for this long."""
        ...

    def check(self) -> None:
        """Raise Unavailable if the store cannot be reached."""
        ...


def checked_key(key: str) -> str:
    """Return the key; InvalidRequest if it is not a valid storage key."""
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{key[:80]!r} is not a valid storage key. A key is a lower-case word followed by one "
            "to eight parts of letters, digits, '.', '_' and '-', such as files/file-abc.",
            code="invalid_storage_key",
        )
    return key


def missing(key: str) -> NotFound:
    """Return the error for a key without a blob."""
    return NotFound(f"Storage has no blob {key!r}; it was deleted or never written.")


def range_of(path: Path, start: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a file from `start` on, in chunks."""
    with path.open("rb") as file:
        file.seek(start)
        while length > 0 and (chunk := file.read(min(CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk


def chunks_of(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file in chunks of at most `chunk_bytes`."""
    with path.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            yield chunk
