"""Where files live: uploads, bundles and archives, each under one key.

Keys are made by Tunesmith (`files/file-abc`, `bundles/ftjob-x/3/final.zip`); what a user
types is never part of one. A blob is written once, whole or not at all.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import InvalidRequest, NotFound

CHUNK_BYTES = 1 << 20

STORAGE_UNAVAILABLE = "storage_unavailable"
"""The code of an Unavailable that a store raises."""

_KEY = re.compile(r"[a-z]{1,32}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){1,8}", re.ASCII)


@dataclass(frozen=True)
class Blob:
    """A stored file; `sha256` is the hex digest of its content."""

    key: str
    bytes: int
    sha256: str


class BlobStore(Protocol):
    """Named files. Reading, sizing or fetching a key without a blob raises NotFound.

    A store behind a network raises Unavailable `storage_unavailable` while that is away.
    """

    def write(self, key: str, chunks: Iterable[bytes]) -> Blob:
        """Store the chunks, one in memory at a time; after an error nothing is stored."""
        ...

    def write_file(self, key: str, path: Path) -> Blob:
        """Store a copy of a local file."""
        ...

    def read(self, key: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the content in chunks of at most `chunk_bytes`."""
        ...

    def size(self, key: str) -> int:
        """Return the length in bytes."""
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Put the content at `target`, replacing what is there. The file is for reading only."""
        ...

    def delete(self, key: str) -> None:
        """Remove the blob; a key without one is fine."""
        ...

    def exists(self, key: str) -> bool:
        """Say whether the key holds a blob."""
        ...

    def sweep(self, older_than_seconds: float) -> None:
        """Remove what killed processes left half done and nobody has touched for so long."""
        ...

    def check(self) -> None:
        """Return when the store can be reached; else raise Unavailable."""
        ...


def checked_key(key: str) -> str:
    """Return the key, or raise InvalidRequest when it does not look like one of ours."""
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{key[:80]!r} is not a storage key. Keys look like files/file-abc: a lower-case word, "
            "then one to eight parts of letters, digits, '.', '_' and '-'.",
            code="invalid_storage_key",
        )
    return key


def missing(key: str) -> NotFound:
    """Return what a store raises for a key without a blob."""
    return NotFound(f"Storage holds nothing under {key!r}; it was deleted or never written.")


def chunks_of(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    """Yield a file's content in chunks of at most `chunk_bytes`."""
    with path.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            yield chunk
