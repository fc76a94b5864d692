"""The manifest of a bundle: its files with sizes and hashes.

The manifest is written last: a folder is a complete bundle if and only if its manifest verifies.
Needs no torch.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError

from core.errors import TunesmithError
from core.spec.adapter_file import WEIGHTS_FILE
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec, Quantization
from core.spec.job import JobSpec
from core.spec.names import Aliased, first_spelling
from core.spec.objective import ObjectiveSpec, Task
from core.spec.precision import NumberFormat
from core.spec.strategy import StrategySpec
from core.spec.tuned import TunedSpec

MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = WEIGHTS_FILE
MODEL_FILE = "model.safetensors"
"""Replaces the adapter file after full fine-tuning."""


class ManifestFile(Spec):
    path: str
    size_bytes: int
    sha256: str


class Manifest(Aliased, Spec):
    """`files` are sorted by path; `checksum` is the SHA-256 of all other fields.

    Strategy, task and objective describe how to load and run the weights.
    """

    format_version: Literal[1] = 1
    base_model: str
    base_revision: str | None
    base_quantization: Quantization | None = Field(
        None, validation_alias=AliasChoices("base_quantization", "base_quantisation")
    )
    precision: NumberFormat | None = None
    """The number format of the base during training; None for older bundles."""
    strategy: StrategySpec
    task: Task
    objective: ObjectiveSpec
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    template_time: float | None = None
    """The time that the chat template gets, in training and in serving."""
    weights_file: str
    weights_sha256: str
    files: tuple[ManifestFile, ...]
    checksum: str = ""


def corrupt(message: str) -> TunesmithError:
    """Return the error for an artifact that does not match its manifest, or has none."""
    return TunesmithError(message, code="artifact_corrupt")


def write_manifest(
    folder: Path, spec: JobSpec | TunedSpec, precision: NumberFormat | None = None
) -> Manifest:
    """Hash every file in `folder`, which must include the weights, and write the manifest."""
    files = tuple(_described(folder, path) for path in _paths(folder))
    weights = _weights(files)
    manifest = Manifest(
        base_model=public_name(spec.base),
        base_revision=spec.base.revision,
        base_quantization=spec.base.quantization,
        precision=precision,
        strategy=spec.strategy,
        task=spec.task,
        objective=spec.objective,
        chat_template_kwargs=spec.chat_template_kwargs,
        template_time=spec.template_time,
        weights_file=weights.path,
        weights_sha256=weights.sha256,
        files=files,
    )
    manifest = Manifest.model_validate_json(manifest.model_dump_json())  # every field is set
    manifest = manifest.model_copy(update={"checksum": _checksum(manifest)})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest without reading the files; `artifact_corrupt` if it is damaged."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise corrupt(f"{folder.name} has no {MANIFEST_FILE}: the bundle is incomplete.") from None
    except ValidationError as error:
        raise corrupt(f"The {MANIFEST_FILE} of {folder.name} is unreadable: {error}") from error
    if manifest.checksum != _checksum(manifest):
        raise corrupt(f"The {MANIFEST_FILE} of {folder.name} does not match its own checksum.")
    return manifest


def verify(folder: Path) -> Manifest:
    """Verify every file of the bundle and return the manifest.

    Raises `artifact_corrupt` if a file is missing, changed, not listed or not a regular file.
    """
    manifest = read_manifest(folder)
    listed = [file.path for file in manifest.files]
    present = _paths(folder)
    if listed != present:
        difference = ", ".join(sorted(set(listed) ^ set(present))) or "their order"
        raise corrupt(f"The files of {folder.name} differ from its manifest: {difference}.")
    for file in manifest.files:
        if _described(folder, file.path) != file:
            raise corrupt(f"{file.path} of {folder.name} does not match its manifest entry.")
    if manifest.weights_sha256 != _weights(manifest.files).sha256:
        raise corrupt(f"The manifest of {folder.name} has two different hashes of its weights.")
    return manifest


def public_name(base: BaseModelSpec) -> str:
    """Return the base's Hugging Face id, or its catalog id if the source is a local folder."""
    return base.id if Path(base.source).is_absolute() else base.source


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _paths(folder: Path) -> list[str]:
    """Return the sorted relative paths of all files but the manifest."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path != folder / MANIFEST_FILE
    )


def _described(folder: Path, name: str) -> ManifestFile:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise corrupt(f"{name} of {folder.name} is not a regular file.")
    return ManifestFile(path=name, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _weights(files: tuple[ManifestFile, ...]) -> ManifestFile:
    for file in files:
        if file.path in (ADAPTER_FILE, MODEL_FILE):
            return file
    raise corrupt(f"The bundle has neither {ADAPTER_FILE} nor {MODEL_FILE}.")


def _checksum(manifest: Manifest) -> str:
    """Return the hash of the fields that the manifest was written with.

    A manifest has its strategy and objective with the fields of the version that wrote it. Later
    fields are unset, and left out.
    """
    rest = manifest.model_dump_json(exclude={"checksum", *_unset(manifest)}, exclude_unset=True)
    return hashlib.sha256(first_spelling(rest).encode()).hexdigest()


def _unset(manifest: Manifest) -> set[str]:
    """Return the later fields that have their defaults, which the checksum leaves out.

    So a new field with a default does not change the checksum of an older manifest.
    """
    return {
        name
        for name, field in type(manifest).model_fields.items()
        if name not in _FIRST_FIELDS
        and not field.is_required()
        and getattr(manifest, name) == field.get_default(call_default_factory=True)
    }


_FIRST_FIELDS = {"format_version"}
"""Fields with a default that the checksum has always included."""
