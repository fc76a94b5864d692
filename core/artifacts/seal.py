"""A seal: a list of a folder's files with hashes, to detect missing or damaged files.

The seal is written last. It serves folders without a manifest, such as a run's resume state.
"""

from pathlib import Path

from pydantic import ValidationError

from core.artifacts.manifest import ManifestFile, sha256_of
from core.spec.base import Spec

SEAL_FILE = "seal.json"


class Seal(Spec):
    files: tuple[ManifestFile, ...]


def seal(folder: Path) -> None:
    """Hash every file directly in `folder` and write the seal."""
    text = Seal(files=_files(folder)).model_dump_json(indent=2)
    (folder / SEAL_FILE).write_text(text + "\n", encoding="utf-8")


def is_intact(folder: Path) -> bool:
    """Whether the folder has exactly the files of its seal, with the same content."""
    try:
        found = Seal.model_validate_json((folder / SEAL_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return found.files == _files(folder)


def _files(folder: Path) -> tuple[ManifestFile, ...]:
    return tuple(
        ManifestFile(path=path.name, size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.name != SEAL_FILE
    )
