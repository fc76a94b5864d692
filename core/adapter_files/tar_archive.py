"""Unpacks an untrusted tar file, plain or compressed by gzip, in one pass."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from core.adapter_files.entries import Entries
from core.adapter_files.limits import CHUNK_BYTES, FREE_BYTES, MAX_BYTES, MAX_FILES, MAX_RATIO
from core.adapter_files.refusal import RefusedAdapter, shown

_READ_ERRORS = (tarfile.TarError, zlib.error, EOFError, ValueError, OSError, OverflowError)
"""Of tarfile and gzip, for invalid headers, checksums and truncated data."""


def unpack_tar(path: Path, entries: Entries, *, compressed: bool) -> None:
    """Write the files of a tar archive; RefusedAdapter for an archive that is not harmless."""
    try:
        with path.open("rb") as file:
            source: Any = _Unzipped(file, path.stat().st_size) if compressed else file
            # a stream: tarfile never seeks, so no member can point at the bytes of another
            with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:
                _unpack(archive, entries)
    except RefusedAdapter:
        raise
    except _READ_ERRORS as error:
        raise RefusedAdapter(f"The tar archive cannot be read: {error}.") from None


def _unpack(archive: tarfile.TarFile, entries: Entries) -> None:
    for number, member in enumerate(archive):
        if number >= 2 * MAX_FILES:
            raise RefusedAdapter(f"The archive has more than {2 * MAX_FILES} entries.")
        name = shown(member.name)
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise RefusedAdapter(
                f"{name} in the archive is a link, a device or sparse; only regular files are "
                "accepted."
            )
        content = archive.extractfile(member)
        assert content is not None
        entries.write(
            entries.admit(member.name, member.size), member.size, _chunks(content, member.size)
        )


def _chunks(content: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left and (chunk := content.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk


class _Unzipped:
    """The content of a gzip file, as a stream that ends with an error if it grows too much."""

    def __init__(self, file: IO[bytes], packed_bytes: int) -> None:
        self._content = gzip.GzipFile(fileobj=file)
        self._left = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * packed_bytes))

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        chunk = self._content.read(min(size, CHUNK_BYTES) if size >= 0 else CHUNK_BYTES)
        self._left -= len(chunk)
        if self._left < 0:
            raise RefusedAdapter(
                f"The archive grows to more than {MAX_RATIO} times its size when it is unpacked."
            )
        return chunk
