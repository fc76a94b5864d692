"""The config of a base, if its files are on this machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.catalog.base_files import config_folder
from core.catalog.families import FAMILIES
from core.spec.base_model import BaseModelSpec


def config_of(base: BaseModelSpec, hub_folder: Path) -> Mapping[str, Any] | None:
    """Return the content of the base's `config.json`; None without one of a supported family.

    Unlike `core.catalog.describe`, it also reads the bases in this machine's Hugging Face cache.
    """
    folder = config_folder(base, hub_folder)
    if folder is None:
        return None
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or config.get("model_type") not in FAMILIES:
        return None
    return config
