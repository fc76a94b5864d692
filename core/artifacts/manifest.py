"""The manifest of a bundle: which files belong to it, their sizes and their hashes.

It is written last, so a folder with a manifest that verifies is a complete bundle, and
nothing else is. Needs no torch.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError

from core.errors import TunesmithError
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec, Quantization
from core.spec.job import JobSpec
from core.spec.names import Aliased, first_spelling
from core.spec.objective import ObjectiveSpec, Task
from core.spec.precision import NumberFormat
from core.spec.strategy import StrategySpec

MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = "adapter_model.safetensors"
MODEL_FILE = "model.safetensors"
"""In place of an adapter when the whole model was trained."""


class ManifestFile(Spec):
    path: str
    size_bytes: int
    sha256: str


class Manifest(Aliased, Spec):
    """`files` are sorted by path; `checksum` is the SHA-256 over everything else in here.

    Strategy, task and objective are what it takes to run the weights again.
    """

    format_version: Literal[1] = 1
    base_model: str
    base_revision: str | None
    base_quantization: Quantization | None = Field(
        None, validation_alias=AliasChoices("base_quantization", "base_quantisation")
    )
    precision: NumberFormat | None = None
    """In which the base computed while the weights were trained; None of an older bundle."""
    strategy: StrategySpec
    task: Task
    objective: ObjectiveSpec
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    template_time: float | None = None
    """What the chat template read when the model was trained, and reads when it is served."""
    weights_file: str
    weights_sha256: str
    files: tuple[ManifestFile, ...]
    checksum: str = ""


def corrupt(message: str) -> TunesmithError:
    """The error for an artifact that is not what its manifest says, or has none."""
    return TunesmithError(message, code="artifact_corrupt")


def write_manifest(folder: Path, spec: JobSpec, precision: NumberFormat | None = None) -> Manifest:
    """Hash every file in `folder` and write its manifest there; the weights must be among them."""
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
    manifest = manifest.model_copy(update={"checksum": _checksum(manifest)})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest without looking at the files; `artifact_corrupt` if it is damaged."""
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
    """Return the manifest after reading every byte of the bundle.

    Raises `artifact_corrupt` when a file is missing, changed, not listed or not a plain file.
    """
    manifest = read_manifest(folder)
    listed = [file.path for file in manifest.files]
    present = _paths(folder)
    if listed != present:
        difference = ", ".join(sorted(set(listed) ^ set(present))) or "their order"
        raise corrupt(f"The files of {folder.name} differ from its manifest in: {difference}.")
    for file in manifest.files:
        if _described(folder, file.path) != file:
            raise corrupt(f"{file.path} of {folder.name} is not the file that its manifest names.")
    if manifest.weights_sha256 != _weights(manifest.files).sha256:
        raise corrupt(f"The manifest of {folder.name} names two hashes for its weights.")
    return manifest


def public_name(base: BaseModelSpec) -> str:
    """The base's Hugging Face id; its catalog id when it is a private folder of this server."""
    return base.id if Path(base.source).is_absolute() else base.source


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _paths(folder: Path) -> list[str]:
    """Everything in the folder but directories and the manifest, as sorted relative paths."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path != folder / MANIFEST_FILE
    )


def _described(folder: Path, name: str) -> ManifestFile:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise corrupt(f"{name} of {folder.name} is not a plain file.")
    return ManifestFile(path=name, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _weights(files: tuple[ManifestFile, ...]) -> ManifestFile:
    for file in files:
        if file.path in (ADAPTER_FILE, MODEL_FILE):
            return file
    raise corrupt(f"The bundle has neither {ADAPTER_FILE} nor {MODEL_FILE}.")


def _checksum(manifest: Manifest) -> str:
    rest = manifest.model_dump_json(exclude={"checksum", *_unset(manifest)})
    return hashlib.sha256(first_spelling(rest).encode()).hexdigest()


def _unset(manifest: Manifest) -> set[str]:
    """Name the fields that say nothing: a manifest from before there were such has none of them.

    So a field that comes later needs a default, and changes no older checksum.
    """
    return {
        name
        for name, field in type(manifest).model_fields.items()
        if name not in _FIRST_FIELDS
        and not field.is_required()
        and getattr(manifest, name) == field.get_default(call_default_factory=True)
    }


_FIRST_FIELDS = {"format_version"}
"""With a default, and in the checksum from the beginning."""
