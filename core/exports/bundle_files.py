"""Copies files of a bundle into an export. Needs no torch."""

import shutil
from pathlib import Path

from core.artifacts.manifest import MANIFEST_FILE, MODEL_FILE
from core.exports.older_programs import use_older_class
from core.spec.adapter_file import CONFIG_FILE, WEIGHTS_FILE

_ADAPTER = (CONFIG_FILE, WEIGHTS_FILE)
_OF_THE_MODEL = (*_ADAPTER, MODEL_FILE, "config.json", "generation_config.json")
_OF_THE_RUN = (MANIFEST_FILE, "README.md", "metrics.csv", "row_losses.csv", "loss.png")
"""What a bundle says of its run; an export has a model card of its own."""


def copy_tokenizer(bundle: Path, out: Path) -> None:
    """Copy the tokenizer and its chat template, as the model was trained and is served with."""
    for path in bundle.iterdir():
        if path.is_file() and path.name not in (*_OF_THE_MODEL, *_OF_THE_RUN):
            shutil.copyfile(path, out / path.name)
    use_older_class(out)


def copy_adapter(bundle: Path, out: Path) -> None:
    """Copy the adapter in PEFT's layout, with its tokenizer."""
    for name in _ADAPTER:
        shutil.copyfile(bundle / name, out / name)
    copy_tokenizer(bundle, out)
