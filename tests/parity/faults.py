"""What may go wrong between a bundle and the engine's answers, planted in the bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from core.artifacts.archive import pack, unpack
from core.artifacts.manifest import ADAPTER_FILE, MANIFEST_FILE, write_manifest
from core.parity.asking import Candidate
from core.spec.bundle import BundleRef
from core.spec.run_request import archive_of
from core.storage.blobs import BlobStore
from tests.worker.finished import Finished

Change = Callable[[Path], None]
"""Changes an unpacked bundle."""


def tampered(finished: Finished, store: BlobStore, folder: Path, change: Change) -> Candidate:
    """Return the model with its bundle changed; `folder` is made."""
    folder.mkdir(parents=True)
    bundle, archive = folder / "bundle", folder / "fetched.zip"
    store.fetch(finished.candidate.bundle.key, archive)
    unpack(archive, bundle)
    change(bundle)
    (bundle / MANIFEST_FILE).unlink()
    write_manifest(bundle, finished.spec)
    sha256 = pack(bundle, archive_of(bundle))
    key = f"bundles/{sha256[:12]}/tampered.zip"
    store.write_file(key, archive_of(bundle))
    return Candidate(finished.spec.base, BundleRef(key=key, sha256=sha256), "default")


def other_template(bundle: Path) -> None:
    """A word before every conversation; a classifier's tokenizer takes two words for each other."""
    template = bundle / "chat_template.jinja"
    if template.exists():
        template.write_text("Note: " + template.read_text())
        return
    path = bundle / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["the"], vocabulary["by"] = vocabulary["by"], vocabulary["the"]
    path.write_text(json.dumps(tokenizer))


def without(name: str) -> Change:
    """Take out what was trained in the modules of a name; an empty name is that of all."""

    def change(bundle: Path) -> None:
        state = load_file(bundle / ADAPTER_FILE)
        lost = [key for key in state if "lora_B" in key and name in key]
        assert lost, sorted(state)
        for key in lost:
            state[key] = torch.zeros_like(state[key])
        _save(state, bundle)

    return change


def weights_of(other: Path) -> Change:
    """Put the weights of another bundle in the place of its own."""

    def change(bundle: Path) -> None:
        _save(load_file(other / ADAPTER_FILE), bundle)

    return change


def _save(state: dict[str, torch.Tensor], bundle: Path) -> None:
    path = bundle / ADAPTER_FILE
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(path)
