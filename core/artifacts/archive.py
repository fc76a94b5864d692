"""A folder as one file, and back again without trusting that file.

The folder is a bundle, whose manifest is held against it on both ways, or the resume state of a
run, whose archive is known by its SHA-256 alone. The archive is a ZIP without compression:
weights do not compress, equal bundles give equal archives whatever zlib is installed, and an
entry cannot expand. Needs no torch.
"""

import errno
import os
import shutil
import stat
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
"""Of a resume state, which holds the optimiser's memory beside the weights."""


def pack(folder: Path, archive: Path) -> str:
    """Write the bundle in `folder` into the file `archive` and return the SHA-256 of that file.

    Verifies the bundle first, and packs what its manifest lists. The file appears whole.
    """
    manifest = verify(folder)
    return _pack(folder, [MANIFEST_FILE, *(file.path for file in manifest.files)], archive)


def pack_state(folder: Path, archive: Path) -> str:
    """Do the same with every file of a resume state."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return _pack(folder, [path.relative_to(folder).as_posix() for path in files], archive)


def _pack(folder: Path, names: list[str], archive: Path) -> str:
    partial = archive.with_name(archive.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whose modes follow
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = (folder / name).stat().st_size  # lets zipfile choose ZIP64
            with (folder / name).open("rb") as source, out.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    flush(partial)
    digest = sha256_of(partial)
    os.replace(partial, archive)
    flush(archive.parent)
    return digest


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Turn an archive into the complete, verified bundle `folder`, or raise `artifact_corrupt`.

    Names that lead out of the folder, links, file kinds that a bundle does not have, too many
    files or bytes and content that its manifest does not name are all refused.
    """
    _unpack(archive, folder, max_bytes, check=verify)


def unpack_state(archive: Path, folder: Path) -> None:
    """Do the same with a resume state. The caller has held the archive against its SHA-256."""
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
    # What zipfile raises for broken headers, encryption, unknown versions and cut-off data,
    # and the file system for a name that is a file here and a folder there.
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
        if error.errno != errno.EINVAL:  # a place in the file that no file has
            raise
        raise corrupt(f"{archive.name} is not a readable bundle archive: {error}") from error


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(entries) > MAX_FILES:
        raise corrupt(f"The archive holds {len(entries)} files; at most {MAX_FILES} are allowed.")
    size_bytes = sum(entry.file_size for entry in entries)
    if size_bytes > max_bytes:
        raise corrupt(f"The archive holds {size_bytes} bytes; at most {max_bytes} are allowed.")
    if len({entry.filename.casefold() for entry in entries}) != len(entries):
        raise corrupt("The archive holds two files of one name.")
    for entry in entries:
        _check_entry(entry)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    path = PurePosixPath(name)
    plain = name.isprintable() and not set(name) & set('\\:*?"<>|')
    if not plain or path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        raise corrupt(f"The archive holds a file with an unsafe name: {name[:80]!r}.")
    if len(name) > MAX_NAME_LENGTH:
        raise corrupt(f"The archive holds a name of {len(name)} characters: {name[:80]!r}.")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise corrupt(f"{name} in the archive is not a plain file.")
    if path.suffix not in ALLOWED_SUFFIXES:
        raise corrupt(f"{name} in the archive is not of a kind that a bundle holds.")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise corrupt(f"{name} in the archive is compressed; a bundle's files are stored plainly.")


def _extract(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as content, target.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)


def _check_weights(path: Path) -> None:
    """Judge weights by content: a pickle under this name has no safetensors header."""
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise corrupt(f"{path.name} in the archive is not a safetensors file: {error}") from error
