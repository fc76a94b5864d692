"""From a frozen base model to one with something to train."""

from typing import assert_never

from transformers import PreTrainedModel

from core.spec.strategy import LoraSpec, StrategySpec
from core.strategies.attached import Attached
from core.strategies.lora import attach_lora


def attach(model: PreTrainedModel, spec: StrategySpec) -> Attached:
    """Change `model` in place so that exactly what `spec` names is trained.

    New weights draw from torch's global generator: seed it first. Raises InvalidRequest when
    the spec does not fit the model.
    """
    match spec:
        case LoraSpec():
            return attach_lora(model, spec)
        case _:
            assert_never(spec)
