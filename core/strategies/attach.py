"""Adds the trained weights of a strategy to a frozen base model."""

from typing import assert_never

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from core.strategies.bottleneck import attach_bottleneck
from core.strategies.full import attach_full
from core.strategies.ia3 import attach_ia3
from core.strategies.lora import attach_lora
from core.strategies.prefix import attach_prefix
from core.strategies.prompt import attach_prompt
from core.strategies.qlora import attach_qlora


def attach(
    model: PreTrainedModel,
    spec: StrategySpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prepack: bool = True,
) -> AdaptedModel:
    """Change `model` in place so that exactly the weights of `spec` are trained.

    New weights are drawn from torch's global generator: seed it first. With `prepack`, a strategy
    may keep copies of the base's matrices to speed up training. Raises InvalidRequest if the spec
    does not fit the model.
    """
    match spec:
        case LoraSpec():
            return attach_lora(model, spec, prepack=prepack)
        case QloraSpec():
            return attach_qlora(model, spec, prepack=prepack)
        case FullSpec():
            return attach_full(model)
        case BottleneckSpec():
            return attach_bottleneck(model, spec)
        case PrefixSpec():
            return attach_prefix(model, spec)
        case PromptSpec():
            return attach_prompt(model, spec, tokenizer)
        case Ia3Spec():
            return attach_ia3(model, spec)
        case _:
            assert_never(spec)
