"""The strategies of PEFT, with the options, targets and trained heads of ours."""

from typing import Any, assert_never

import peft
from transformers import PreTrainedModel

from bench.plain_bottleneck import add_bottlenecks
from core.adapters.modules_to_save import classifier_head
from core.adapters.targets import peft_task, target_names
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


def with_strategy(base: PreTrainedModel, strategy: StrategySpec) -> Any:
    """Return the base with a strategy, from PEFT if supported."""
    head = classifier_head(base)
    common: dict[str, Any] = {"task_type": peft_task(base)}
    if head:
        common["modules_to_save"] = list(head)
    config: peft.PeftConfig
    match strategy:
        case FullSpec():
            return base
        case BottleneckSpec():
            adapted = add_bottlenecks(base, strategy)
            for name in head:
                for path, module in adapted.named_modules():
                    if path.endswith(name):
                        module.requires_grad_(True)
            return adapted
        case LoraSpec() | QloraSpec():
            config = peft.LoraConfig(
                r=strategy.rank,
                lora_alpha=strategy.alpha,
                lora_dropout=strategy.dropout,
                target_modules=list(target_names(base, strategy.target_modules)),
                **common,
            )
        case PrefixSpec():
            config = peft.PrefixTuningConfig(num_virtual_tokens=strategy.virtual_tokens, **common)
        case PromptSpec():
            config = peft.PromptTuningConfig(num_virtual_tokens=strategy.virtual_tokens, **common)
        case Ia3Spec():
            config = peft.IA3Config(**common)
        case _:
            assert_never(strategy)
    return peft.get_peft_model(base, config)
