"""Finds the adapter in a folder of unpacked or uploaded files, and reads what an import needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.adapter_files.config import read_config
from core.adapter_files.content import head_of, kind_of
from core.adapter_files.limits import MAX_TEXT_BYTES
from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapter_files.weights import read_tensors
from core.datasets.strict_json import BadJson, decode
from core.spec.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterParts
from core.spec.objective import MAX_LABELS


def adapter_folder(folder: Path) -> Path:
    """Return the only folder in `folder`, or itself, with an adapter; RefusedAdapter otherwise."""
    found = [path for path in sorted(folder.rglob(CONFIG_FILE)) if path.is_file()]
    if not found:
        raise RefusedAdapter(
            f"There is no {CONFIG_FILE}. Send the folder that PEFT's save_pretrained writes, with "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}."
        )
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:4])
        raise RefusedAdapter(f"There are several adapters ({shown(names)}); send one of them.")
    return found[0].parent


def read_parts(folder: Path) -> AdapterParts:
    """Return the checked parts of the adapter in `folder`; RefusedAdapter for anything else."""
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        others = [path.name for path in sorted(folder.iterdir()) if path.name != CONFIG_FILE]
        raise RefusedAdapter(
            f"There is no {WEIGHTS_FILE} beside {CONFIG_FILE}, but {shown(', '.join(others))}. "
            "Only safetensors weights are accepted: save the adapter with a current PEFT."
        )
    require_safetensors(weights)
    config = read_config((folder / CONFIG_FILE).read_bytes())
    return AdapterParts(
        config=config,
        tensors=read_tensors(weights),
        chat_template=_chat_template(folder),
        labels=_labels(folder / "config.json"),
    )


def require_safetensors(path: Path) -> None:
    """Raise RefusedAdapter if the content is anything but safetensors."""
    kind = kind_of(head_of(path), path.stat().st_size)
    if kind != "safetensors":
        raise RefusedAdapter(
            f"{shown(path.name)} is not safetensors by its content. Weights that were only renamed "
            "stay pickles, which run code when they are loaded."
        )


def require_small_texts(folder: Path, names: Sequence[str]) -> None:
    """Raise RefusedAdapter for a large file that is no weights."""
    for name in names:
        size = (folder / name).stat().st_size
        if size > MAX_TEXT_BYTES and kind_of(head_of(folder / name), size) != "safetensors":
            raise RefusedAdapter(f"{shown(name)} has {size:,} bytes and is no weights file.")


def _chat_template(folder: Path) -> str | None:
    """Return the chat template of the adapter's tokenizer. It is compared, and never run."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_bytes().decode(errors="replace")
    found = _object_in(folder / "tokenizer_config.json").get("chat_template")
    return found if isinstance(found, str) else None


def _labels(path: Path) -> tuple[str, ...]:
    """Return the label names of a classifier's config.json, in order; empty if it has none."""
    found = _object_in(path).get("id2label")
    if not isinstance(found, dict) or len(found) > MAX_LABELS:
        return ()
    names = [found.get(str(index)) for index in range(len(found))]
    are_names = all(isinstance(name, str) and 0 < len(name) <= 512 for name in names)
    return tuple(map(str, names)) if are_names else ()


def _object_in(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that only helps; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        found = decode(path.read_bytes().decode())
    except (UnicodeDecodeError, BadJson):
        return {}
    return found if isinstance(found, dict) else {}
