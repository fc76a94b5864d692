"""Stores the measured costs of 16 bits on this machine's disk.

One small JSON file per base, format, kind of device and version of torch. A base is identified by
the contents of its files, not by its name.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import torch
from pydantic import ValidationError

from core.models.load import folder_of
from core.models.precision_texts import CHATS, LONGEST_TEXT, TEXTS
from core.spec.base_model import BaseModelSpec
from core.spec.precision import PrecisionCost, SixteenBits

logger = logging.getLogger(__name__)

_SAMPLES = 64
_SAMPLE_BYTES = 4096
_TEXTS_READ = repr((TEXTS, CHATS, LONGEST_TEXT))


class PrecisionStore:
    """Costs by base and format; processes may share it. Without a folder it is always empty."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._folder = folder
        self._device = _kind_of(device)

    def find(self, base: BaseModelSpec, format_: SixteenBits) -> PrecisionCost | None:
        """Return the stored cost; None if there is no readable one."""
        path = self._path(base, format_)
        if path is None:
            return None
        try:
            return PrecisionCost.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("Cannot read %s; the cost is measured again: %s", path, error)
            return None

    def keep(self, base: BaseModelSpec, cost: PrecisionCost) -> None:
        """Store a cost atomically. If that fails, it will be measured again."""
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
            logger.warning("Cannot store the cost of %s in %s: %s", base.id, path.parent, error)

    def _path(self, base: BaseModelSpec, format_: SixteenBits) -> Path | None:
        if self._folder is None:
            return None
        facts = [identity_of(base), format_, self._device, torch.__version__, _TEXTS_READ]
        name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
        return self._folder / f"{name}.json"


def identity_of(base: BaseModelSpec) -> str:
    """Return an identity of a base's weights without reading all of them.

    For the hub it is the commit; for a folder the config and, per file, size, header and samples.
    """
    folder = Path(base.source)
    if not folder.is_absolute():
        return f"{base.source}@{folder_of(base).name}"
    digest = hashlib.sha256()
    # the tokenizer and the chat template determine the measured tokens
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in names:
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        step = max(1, size // _SAMPLES)
        with path.open("rb") as file:
            for offset in range(0, size, max(step, _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _kind_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
