"""Unpacks an untrusted zip file: first all entries are checked, then one after another is read."""

import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.adapter_files.entries import Entries
from core.adapter_files.limits import CHUNK_BYTES, FREE_BYTES, MAX_FILES, MAX_RATIO
from core.adapter_files.refusal import RefusedAdapter, shown

_ENCRYPTED, _UTF8 = 0x1, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER_BYTES = 30
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    NotImplementedError,
    ValueError,
    EOFError,
    OSError,
)
"""Of zipfile, for invalid headers, offsets, checksums and truncated data."""


def unpack_zip(path: Path, entries: Entries) -> None:
    """Write the files of a zip archive; RefusedAdapter for an archive that is not harmless."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [each for each in archive.infolist() if not _is_folder(each)]
            if len(archive.infolist()) > 2 * MAX_FILES:
                raise RefusedAdapter(f"The archive has more than {2 * MAX_FILES} entries.")
            _refuse_overlaps(archive.infolist())
            names = [entries.admit(_checked(each), each.file_size) for each in files]
            for name, each in zip(names, files, strict=True):
                entries.write(name, each.file_size, _chunks(archive, each))
    except RefusedAdapter:
        raise
    except _READ_ERRORS as error:
        raise RefusedAdapter(f"The zip archive cannot be read: {error}.") from None


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.endswith("/") and entry.file_size == 0


def _checked(entry: zipfile.ZipInfo) -> str:
    """Return the name of a harmless entry."""
    name = shown(entry.filename)
    if entry.flag_bits & _ENCRYPTED:
        raise RefusedAdapter(f"{name} in the archive is encrypted; pack it without a password.")
    if not entry.flag_bits & _UTF8 and not entry.filename.isascii():
        raise RefusedAdapter(f"The name {name} in the archive is not marked as UTF-8.")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise RefusedAdapter(
            f"{name} in the archive is a link or a device; only regular files are accepted."
        )
    if entry.compress_type not in _METHODS:
        raise RefusedAdapter(f"{name} in the archive is compressed in an unusual way; use deflate.")
    if entry.file_size > max(FREE_BYTES, MAX_RATIO * entry.compress_size):
        raise RefusedAdapter(
            f"{name} in the archive would grow from {entry.compress_size:,} to "
            f"{entry.file_size:,} bytes; at most {MAX_RATIO} times is accepted."
        )
    return entry.filename


def _refuse_overlaps(entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raise RefusedAdapter if entries share bytes of the file, by which a small file grows."""
    end = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < end:
            raise RefusedAdapter("Entries of the archive overlap.")
        end = entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(entry) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
