"""Packs a folder into one file, and safely unpacks untrusted archives.

The folder is a bundle, verified against its manifest in both directions, or the resume state of a
run, whose archive is verified by its SHA-256 only. The archive is an uncompressed ZIP: weights do
not compress, equal bundles give equal archives with any version of zlib, and entries cannot expand.
Needs no torch.
"""

import errno
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from core.artifacts.manifest import MANIFEST_FILE, corrupt, sha256_of, verify
from core.artifacts.publish import flush, published_folder

ALLOWED_SUFFIXES = frozenset(
    {".safetensors", ".json", ".jinja", ".md", ".csv", ".png", ".svg", ".txt", ".model"}
)
MAX_FILES = 256
MAX_NAME_LENGTH = 200
MAX_BYTES = 64 * 1024**3
MAX_STATE_BYTES = 1024**4
"""The limit for a resume state, which has optimizer state besides the weights."""


def pack(folder: Path, archive: Path) -> str:
    """Verify the bundle in `folder`, pack the files of its manifest, and return the SHA-256.

    `archive` is written atomically.
    """
    manifest = verify(folder)
    return _pack(folder, [MANIFEST_FILE, *(file.path for file in manifest.files)], archive)


def pack_state(folder: Path, archive: Path) -> str:
    """Pack every file of a resume state and return the SHA-256 of the archive."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return _pack(folder, [path.relative_to(folder).as_posix() for path in files], archive)


def _pack(folder: Path, names: list[str], archive: Path) -> str:
    partial = archive.with_name(archive.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix: the file mode below applies
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = (folder / name).stat().st_size  # lets zipfile choose ZIP64
            with (folder / name).open("rb") as source, out.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    flush(partial)
    digest = sha256_of(partial)
    os.replace(partial, archive)
    flush(archive.parent)
    return digest


def contents(archive: Path) -> list[tuple[str, int, int]]:
    """Return (name, length, offset) of each file in one of our archives, sorted by name.

    The entries are not compressed, so the bytes of a file are a range of the archive.
    """
    with zipfile.ZipFile(archive) as source, archive.open("rb") as file:
        found = []
        for entry in source.infolist():
            file.seek(entry.header_offset + _LENGTHS_AT)
            name, extra = struct.unpack("<HH", file.read(4))
            offset = entry.header_offset + _LENGTHS_AT + 4 + name + extra
            found.append((entry.filename, entry.file_size, offset))
        return sorted(found)


_LENGTHS_AT = 26
"""Of name and extra field, in an entry's own header (APPNOTE.TXT, section 4.3.7)."""


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack an archive into a complete, verified bundle, or raise `artifact_corrupt`.

    Rejects names outside the folder, links, unexpected file types, too many files or bytes, and
    content that differs from the manifest.
    """
    _unpack(archive, folder, max_bytes, check=verify)


def unpack_state(archive: Path, folder: Path) -> None:
    """Unpack a resume state. The caller has verified the SHA-256 of the archive."""
    _unpack(archive, folder, MAX_STATE_BYTES, check=lambda _: None)


def _unpack(
    archive: Path, folder: Path, max_bytes: int, *, check: Callable[[Path], object]
) -> None:
    try:
        with zipfile.ZipFile(archive) as source, published_folder(folder) as partial:
            entries = source.infolist()
            _check_entries(entries, max_bytes)
            for entry in entries:
                _extract(source, entry, partial / entry.filename)
            for weights in partial.rglob("*.safetensors"):
                _check_weights(weights)
            check(partial)
    # zipfile raises these for invalid headers, encryption, unknown versions and truncated data,
    # and the file system for a name used both as a file and as a folder.
    except (
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        EOFError,
        FileExistsError,
        NotADirectoryError,
    ) as error:
        raise corrupt(f"{archive.name} is not a readable bundle archive: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # an invalid offset in the archive
            raise
        raise corrupt(f"{archive.name} is not a readable bundle archive: {error}") from error


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(entries) > MAX_FILES:
        raise corrupt(f"The archive has {len(entries)} files; at most {MAX_FILES} are allowed.")
    size_bytes = sum(entry.file_size for entry in entries)
    if size_bytes > max_bytes:
        raise corrupt(f"The archive has {size_bytes} bytes; at most {max_bytes} are allowed.")
    if len({entry.filename.casefold() for entry in entries}) != len(entries):
        raise corrupt("The archive has two files with the same name.")
    for entry in entries:
        _check_entry(entry)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    path = PurePosixPath(name)
    plain = name.isprintable() and not set(name) & set('\\:*?"<>|')
    if not plain or path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        raise corrupt(f"The archive has a file with an unsafe name: {name[:80]!r}.")
    if len(name) > MAX_NAME_LENGTH:
        raise corrupt(f"The archive has a file name of {len(name)} characters: {name[:80]!r}.")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise corrupt(f"{name} in the archive is not a regular file.")
    if path.suffix not in ALLOWED_SUFFIXES:
        raise corrupt(f"{name} in the archive has a file type that bundles do not contain.")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise corrupt(f"{name} in the archive is compressed; bundles must be uncompressed.")


def _extract(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as content, target.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)


def _check_weights(path: Path) -> None:
    """Check that the content is safetensors, not for example a pickle with this suffix."""
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise corrupt(f"{path.name} in the archive is not a safetensors file: {error}") from error
