"""What 16 bits were found to cost, kept on a disk of this machine so that it is measured once.

One small JSON file per base, format, kind of device and version of torch. A base is known by what
its files hold, not by its name: other weights in the same folder are another base.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import torch
from pydantic import ValidationError

from core.models.load import load_config
from core.models.precision_texts import CHATS, LONGEST_TEXT, TEXTS
from core.spec.base_model import BaseModelSpec
from core.spec.precision import PrecisionCost, SixteenBits

logger = logging.getLogger(__name__)

_SAMPLES = 64
_SAMPLE_BYTES = 4096
_TEXTS_READ = repr((TEXTS, CHATS, LONGEST_TEXT))


class PrecisionStore:
    """Costs by base and format; safe to share between processes. Without a folder it is empty."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder = folder
        self._device = _kind_of(device)

    def find(self, base: BaseModelSpec, format_: SixteenBits) -> PrecisionCost | None:
        """Return what was kept; None when there is nothing, or nothing that can be read."""
        path = self._path(base, format_)
        if path is None:
            return None
        try:
            return PrecisionCost.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("%s is measured again, because it cannot be read: %s", path, error)
            return None

    def keep(self, base: BaseModelSpec, cost: PrecisionCost) -> None:
        """Write a cost down, whole or not at all; a disk that refuses costs a measurement later."""
        path = self._path(base, cost.format)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".keeping-")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(cost.model_dump_json(indent=2) + "\n")
            os.replace(partial, path)
        except OSError as error:
            logger.warning("What %s costs cannot be kept in %s: %s", base.id, path.parent, error)

    def _path(self, base: BaseModelSpec, format_: SixteenBits) -> Path | None:
        if self._folder is None:
            return None
        facts = [identity_of(base), format_, self._device, torch.__version__, _TEXTS_READ]
        name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
        return self._folder / f"{name}.json"


def identity_of(base: BaseModelSpec) -> str:
    """Return what tells the weights of a base from all others, without reading all of them.

    Of the hub it is the commit, of a folder the config and, per file, size, header and samples.
    """
    folder = Path(base.source)
    if not folder.is_absolute():
        return f"{base.source}@{load_config(base)._commit_hash}"
    digest = hashlib.sha256()
    # the tokenizer and the chat template decide what of the texts the base reads
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in names:
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        step = max(1, size // _SAMPLES)
        with path.open("rb") as file:
            for place in range(0, size, max(step, _SAMPLE_BYTES)):
                file.seek(place)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _kind_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
