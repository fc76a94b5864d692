"""Full fine-tuning: every weight of the base is trained."""

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.targets import is_quantized
from core.errors import InvalidRequest


def attach_full(model: PreTrainedModel) -> AdaptedModel:
    """Train every weight of the model itself, under the name that `save_pretrained` gives it.

    A weight that several layers share counts once. Raises InvalidRequest for a quantized base.
    """
    if any(is_quantized(module) for module in model.modules()):
        raise InvalidRequest(
            "The base model is quantized, and quantized weights cannot be trained. Choose lora "
            "or qlora, or the base before its quantization.",
            param="strategy.type",
            code="quantised_base",
        )
    model.requires_grad_(True)
    return AdaptedModel(model, dict(model.named_parameters()), config=None)
