"""QLoRA: low-rank updates on 4-bit linear layers.

`core/models/load.py` quantizes the base while loading it. The adapter is the same as for LoRA, so
it also fits the unquantized base, on which other programs serve it.

Source: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
"""

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.low_rank import attach_low_rank
from core.spec.strategy import QloraSpec


def attach_qlora(model: PreTrainedModel, spec: QloraSpec, *, prepack: bool = True) -> AdaptedModel:
    """Train low-rank updates of the targeted layers of a quantized or dense base."""
    return attach_low_rank(model, spec, prepack=prepack)
