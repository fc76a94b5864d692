"""The files of a base on this machine: a folder, or a snapshot in the cache of huggingface_hub.

Nothing here uses the network. A snapshot counts once its weights are complete, because
`worker.downloads` fetches them after all other files.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.spec.base_files import BaseFiles
from core.spec.base_model import BaseModelSpec

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)
_LICENSE = re.compile(r"^license(_name)?:[ \t]*[\"']?([\w.+ -]+?)[\"']?[ \t]*$", re.MULTILINE)
_CARD_CHARACTERS = 65_536


def is_on_hub(base: BaseModelSpec) -> bool:
    """Return whether the source of the base is a Hugging Face id, not a folder."""
    return not Path(base.source).is_absolute()


def base_folder(base: BaseModelSpec, hub_folder: Path) -> Path | None:
    """Return the folder with the files of the base; None if it lacks its config or weights."""
    folder = config_folder(base, hub_folder)
    return folder if folder is not None and weight_files(folder) else None


def config_folder(base: BaseModelSpec, hub_folder: Path) -> Path | None:
    """Return the folder of the base if its config is there; the weights may not be."""
    folder = _snapshot(base, hub_folder) if is_on_hub(base) else Path(base.source)
    return folder if (folder / "config.json").is_file() else None


def look_for(base: BaseModelSpec, hub_folder: Path, *, may_download: bool) -> BaseFiles:
    """Return what this machine has of the base."""
    folder = base_folder(base, hub_folder)
    if folder is None:
        return BaseFiles(state="downloadable" if is_on_hub(base) and may_download else "missing")
    size = sum(file.stat().st_size for file in weight_files(folder))
    return BaseFiles(state="present", bytes=size, license=license_of(folder))


def weight_files(folder: Path) -> Sequence[Path]:
    """Return the files of the weights; none if one of them is missing."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files = [folder / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return files if all(file.is_file() for file in files) else []


def license_of(folder: Path) -> str | None:
    """Return the license that the model card names; None without one."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as card:
            front_matter = _FRONT_MATTER.match(card.read(_CARD_CHARACTERS))
    except OSError:
        return None
    if front_matter is None:
        return None
    named = {kind: value for kind, value in _LICENSE.findall(front_matter[1])}
    return named.get("_name") or named.get("")


def _snapshot(base: BaseModelSpec, hub_folder: Path) -> Path:
    repository = hub_folder / f"models--{base.source.replace('/', '--')}"
    revision = base.revision or "main"
    try:
        commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # a commit has no file there
        commit = revision
    return repository / "snapshots" / commit
