"""What the API must know of a base before it accepts a job, read without torch."""

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
    quantised: bool = False
    """Whether its weights are quantised, as they are stored or while they are loaded."""
    hidden_size: int | None = None
    """None where the config leaves it to the defaults of its class."""


def describe(base: BaseModelSpec) -> BaseFacts | None:
    """Return the facts of a base in a folder of this machine, and None for any other.

    A Hugging Face id, or a folder that only the workers have, is looked at on a worker.
    Raises InvalidRequest for a family or a quantization that is not supported, and when the
    folder holds no usable config.json.
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
        raise _unusable(base, "its config.json does not say model_type")
    limit = context_length(config)
    if limit is None:
        raise _unusable(base, f"its config.json does not say {family_of(model_type).positions}")
    return BaseFacts(model_type, limit, comes_quantised(base, config), hidden_size(config))


def comes_quantised(base: BaseModelSpec, config: Mapping[str, Any]) -> bool:
    """Say whether a base is quantised in memory, because it is stored so or asked for so.

    Raises InvalidRequest when it is both, and what `is_quantised` raises.
    """
    stored = is_quantised(config)
    if stored and base.quantization is not None:
        raise InvalidRequest(
            f"The base model {base.id!r} is stored quantised already. Take quantization out of its "
            "catalog entry, or name its original weights there.",
            param="model",
            code="unsupported_model",
        )
    return stored or base.quantization is not None


def is_quantised(config: Mapping[str, Any]) -> bool:
    """Say whether a config's weights are stored quantised.

    Raises InvalidRequest for any other quantization than that of bitsandbytes.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return False
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method == "bitsandbytes":
        return True
    raise InvalidRequest(
        f"The base model is quantised by {method}, which cannot be trained here. Take its original "
        "weights, or those that bitsandbytes has quantised.",
        param="model",
        code="unsupported_model",
    )


def _unusable(base: BaseModelSpec, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The base model {base.id!r} cannot be used: {why}. Save it again with save_pretrained.",
        param="model",
        code="unsupported_model",
    )
