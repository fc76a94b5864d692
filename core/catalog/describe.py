"""Facts of a base that the API needs before it accepts a job, read without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalog.families import context_length, family_of, hidden_size
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec


@dataclass(frozen=True)
class BaseFacts:
    """Facts of a base's `config.json`; `context_length` in tokens."""

    model_type: str
    context_length: int
    quantized: bool = False
    """Whether its weights are quantized in its files or while they are loaded."""
    hidden_size: int | None = None
    """None if the config relies on the default of its class."""


def describe(base: BaseModelSpec) -> BaseFacts | None:
    """Return the facts of a base in a folder of this machine; None for any other base.

    A worker checks a Hugging Face id, or a folder that only workers have. Raises InvalidRequest
    for an unsupported family or quantization, and if the folder has no usable config.json.
    """
    folder = Path(base.source)
    if not folder.is_absolute() or not folder.is_dir():
        return None
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unusable(base, "its folder has no config.json") from None
    except (ValueError, RecursionError):
        raise _unusable(base, "its config.json is not JSON") from None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str):
        raise _unusable(base, "its config.json has no model_type")
    limit = context_length(config)
    if limit is None:
        raise _unusable(base, f"its config.json has no {family_of(model_type).positions}")
    return BaseFacts(model_type, limit, loads_quantized(base, config), hidden_size(config))


def loads_quantized(base: BaseModelSpec, config: Mapping[str, Any]) -> bool:
    """Return whether a base is quantized in memory, by its files or by its catalog entry.

    Raises InvalidRequest if it is both, and the errors of `is_stored_quantized`.
    """
    stored = is_stored_quantized(config)
    if stored and base.quantization is not None:
        raise InvalidRequest(
            f"The files of the base model {base.id!r} are already quantized. Remove quantization "
            "from its catalog entry, or use its original weights as the source.",
            param="model",
            code="unsupported_model",
        )
    return stored or base.quantization is not None


def is_stored_quantized(config: Mapping[str, Any]) -> bool:
    """Return whether the weights of a config are stored quantized.

    Raises InvalidRequest for any quantization except that of bitsandbytes.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return False
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method == "bitsandbytes":
        return True
    raise InvalidRequest(
        f"The base model is quantized with {method}, which cannot be trained here. Use its "
        "original weights, or weights quantized with bitsandbytes.",
        param="model",
        code="unsupported_model",
    )


def _unusable(base: BaseModelSpec, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The base model {base.id!r} cannot be used: {why}. Save it again with save_pretrained.",
        param="model",
        code="unsupported_model",
    )
