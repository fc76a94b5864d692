"""From a frozen base model to one with something to train."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.errors import InvalidRequest
from core.spec.strategy import LoraSpec, StrategySpec
from core.strategies.lora import attach_lora


def attach(
    model: PreTrainedModel, spec: StrategySpec, tokenizer: PreTrainedTokenizerBase
) -> AdaptedModel:
    """Change `model` in place so that exactly what `spec` names is trained.

    New weights draw from torch's global generator: seed it first. Raises InvalidRequest when
    the spec does not fit the model.
    """
    match spec:
        case LoraSpec():
            return attach_lora(model, spec)
        case _:
            raise InvalidRequest(f"{spec.type} is not built yet.", param="strategy.type")
