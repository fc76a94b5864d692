"""What differs between model families and is plain fact: names of layers, layout of batches.

The key is `model_type` of the Hugging Face config. `packed` means that several rows may
stand in one sequence, which a test per family proves by comparing logits.
"""

from dataclasses import dataclass
from typing import Literal

from core.errors import InvalidRequest
from core.spec.strategy import Preset


@dataclass(frozen=True)
class Family:
    """One architecture; `presets` name the linear layers by the last part of their path."""

    model_type: str
    layout: Literal["packed", "padded"]
    presets: dict[Preset, tuple[str, ...]]


_SPLIT_PROJECTIONS: dict[Preset, tuple[str, ...]] = {
    "query-value": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    # The gate is left out on purpose: `all-linear` adds it.
    "attention+ffn": ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    "all-linear": (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ),
}

FAMILIES: dict[str, Family] = {
    model_type: Family(model_type, "packed", _SPLIT_PROJECTIONS)
    for model_type in ("llama", "mistral", "qwen2", "qwen3")
}


def family_of(model_type: str) -> Family:
    """Return the family of a config's `model_type`; InvalidRequest when it is not known."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise InvalidRequest(
            f"Models of type {model_type!r} are not supported. Supported types: {known}.",
            param="model",
            code="unsupported_model",
        ) from None
