"""LoRA on any base, including pre-quantized ones."""

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.low_rank import attach_low_rank
from core.spec.strategy import LoraSpec


def attach_lora(model: PreTrainedModel, spec: LoraSpec, *, prepack: bool = True) -> AdaptedModel:
    """Train low-rank updates of the targeted layers."""
    return attach_low_rank(model, spec, prepack=prepack)
