"""Config files that programs with transformers 4 read as well as those with transformers 5.

transformers 5 writes new names only. Programs of before do not find the frequency of the rotary
embedding there, and use a default without a message; and they refuse the class of the tokenizer.
Needs no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CONFIG, _TOKENIZER = "config.json", "tokenizer_config.json"

_THETAS_BY_KIND = {
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
}
"""By family, and kind of layer: the field for the frequency of the rotary embedding."""


def add_older_names(folder: Path) -> None:
    """Add the names that transformers 4 knows to the config of the model in `folder`."""
    config = _read(folder / _CONFIG)
    _write(folder / _CONFIG, config | _older_rotary(config))


def use_older_class(folder: Path) -> None:
    """Give the tokenizer in `folder` a class and names that every version of transformers knows."""
    path = folder / _TOKENIZER
    if not path.is_file():
        return
    config = _read(path)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):  # names by token in transformers 4
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    _write(path, config)


def _older_rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = config.get("rope_parameters")
    if not parameters:
        return {}
    if (fields := _THETAS_BY_KIND.get(str(config.get("model_type")))) is not None:
        thetas = {fields[kind]: parameters[kind]["rope_theta"] for kind in fields}
        return thetas | _scaling(parameters["full_attention"])
    return {"rope_theta": parameters["rope_theta"]} | _scaling(parameters)


def _scaling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a context is stretched, and which share of each head is rotated."""
    rest = {name: value for name, value in parameters.items() if name != "rope_theta"}
    partial = rest.pop("partial_rotary_factor", None)
    share = {} if partial is None else {"partial_rotary_factor": partial}
    kind = rest.get("rope_type")
    if kind == "default":
        return share
    if kind == "longrope":  # transformers 4 refuses any field more
        rest = {name: rest[name] for name in ("short_factor", "long_factor")} | {"type": kind}
    return share | {"rope_scaling": rest}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, config: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
