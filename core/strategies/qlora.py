"""QLoRA: low-rank updates on linear layers of four bits.

Loading quantises (`core/models/load.py`), and the layers see to the rest: what is attached is the
same as for LoRA. So the result also fits the base as it was before, for which others serve it.

Source: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
"""

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.low_rank import attach_low_rank
from core.spec.strategy import QloraSpec


def attach_qlora(model: PreTrainedModel, spec: QloraSpec, *, prepack: bool = True) -> AdaptedModel:
    """Train low-rank updates of the targeted layers; the base may be quantised or not."""
    return attach_low_rank(model, spec, prepack=prepack)
