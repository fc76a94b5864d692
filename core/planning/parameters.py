"""The number of weights of a base, and of those that a strategy trains, without torch.

The counts are exactly those of `AdaptedModel`, for every family and strategy; the rules by which
layers are named are those of `core/adapters/targets.py` and `modules_to_save.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.planning.decoders import decoder
from core.planning.encoder_decoders import encoder_decoder
from core.planning.encoders import encoder
from core.planning.fields import Fields
from core.planning.module_names import copied_modules, targeted_layers
from core.planning.outline import LinearShape, Outline
from core.spec.objective import Task
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LowRankSpec,
    PrefixSpec,
    PromptSpec,
    StrategySpec,
)

USUAL_LABELS = 2


@dataclass(frozen=True)
class ParameterCounts:
    """Weights of the base and the strategy together, and the trained ones among them."""

    total: int
    trainable: int

    @property
    def trainable_share(self) -> float:
        return self.trainable / self.total


@dataclass(frozen=True)
class Trained:
    """What a strategy trains in an outline."""

    adapted: Mapping[str, LinearShape]
    """The linear layers with an update of their own, by path."""
    added: int
    """Weights beside those of the base."""
    copied: tuple[str, ...] = ()
    """Modules of the base that are trained completely, on a copy."""
    everything: bool = False


def outline_of(config: Mapping[str, Any], task: Task, labels: int | None = None) -> Outline:
    """Return the outline of a base with the head of `task`.

    `labels` is only used for classification. InvalidRequest for an unsupported family, task or
    size.
    """
    family, fields = family_of(config["model_type"]), Fields(config)
    if task not in family.tasks:
        raise InvalidRequest(
            f"A base of type {family.model_type} does not support the task {task}. Supported "
            f"tasks: {', '.join(family.tasks)}.",
            param="task",
            code="impossible_combination",
        )
    labels = (labels or USUAL_LABELS) if task == "classification" else None
    match family.kind:
        case "decoder":
            return decoder(fields, labels)
        case "encoder":
            return encoder(fields, labels or USUAL_LABELS)
        case "encoder-decoder":
            return encoder_decoder(fields)
        case _:
            assert_never(family.kind)


def count_parameters(
    config: Mapping[str, Any], task: Task, strategy: StrategySpec, labels: int | None = None
) -> ParameterCounts:
    """Return the counts of a base with a strategy. Raises the errors of the two functions below."""
    outline = outline_of(config, task, labels)
    return counts_of(outline, trained_by(strategy, outline, config["model_type"], task))


def trained_by(strategy: StrategySpec, outline: Outline, model_type: str, task: Task) -> Trained:
    """Return what the strategy trains; InvalidRequest if it names layers that do not exist."""
    family = family_of(model_type)
    head = family.head if task == "classification" else ()
    match strategy:
        case FullSpec():
            return Trained({}, 0, everything=True)
        case LowRankSpec():
            copied = (*head, *strategy.modules_to_save)
            targets = strategy.target_modules
            names = family.layers.preset(targets) if isinstance(targets, str) else targets
            layers = targeted_layers(outline, names, copied, all_named=not isinstance(targets, str))
            added = sum(_low_rank_weights(strategy, *layer) for layer in layers.items())
            return Trained(layers, added, copied_modules(outline, copied))
        case Ia3Spec():
            copied = (*head, *strategy.modules_to_save)
            parts = family.layers
            names = strategy.target_modules or (*parts.key, *parts.value, *parts.down)
            inputs = strategy.feedforward_modules if strategy.target_modules else parts.down
            layers = targeted_layers(
                outline, names, copied, all_named=bool(strategy.target_modules)
            )
            added = sum(
                layer.inputs if path.endswith(tuple(inputs)) else layer.outputs
                for path, layer in layers.items()
            )
            return Trained(layers, added, copied_modules(outline, copied))
        case BottleneckSpec():
            places = sum(outline.blocks.values()) * (2 if strategy.placement == "houlsby" else 1)
            inner = inner_width(strategy, outline)
            one = 2 * outline.width * inner + inner + outline.width
            return Trained({}, places * one, copied_modules(outline, head))
        case PrefixSpec():
            shape = outline.attention
            pairs = 2 * shape.layers * shape.key_value_heads * shape.head_size
            return Trained({}, strategy.virtual_tokens * pairs, copied_modules(outline, head))
        case PromptSpec():
            return Trained(
                {}, strategy.virtual_tokens * outline.width, copied_modules(outline, head)
            )
        case _:
            assert_never(strategy)


def counts_of(outline: Outline, trained: Trained) -> ParameterCounts:
    """Return the counts of an outline of which `trained` is trained."""
    if trained.everything:
        return ParameterCounts(outline.parameters, outline.parameters)
    in_copies = copied_weights(outline, trained)
    trainable = trained.added + in_copies
    if not trained.copied:
        return ParameterCounts(outline.parameters + trained.added, trainable)
    inside = tuple(f"{path}." for path in trained.copied)
    kept = {outline.tied.get(name, name) for name in outline.weights if not name.startswith(inside)}
    return ParameterCounts(sum(map(outline.size_of, kept)) + trainable, trainable)


def copied_weights(outline: Outline, trained: Trained) -> int:
    """Return the number of weights in the trained copies of modules."""
    return sum(
        outline.size_of(name) for module in trained.copied for name in outline.weights_in(module)
    )


def inner_width(strategy: BottleneckSpec, outline: Outline) -> int:
    """Return the inner width of a bottleneck; InvalidRequest if it has none."""
    inner = outline.width // strategy.reduction_factor
    if inner == 0:
        raise InvalidRequest(
            f"reduction_factor is {strategy.reduction_factor}, but the base model has only "
            f"{outline.width} features. Use a smaller factor.",
            param="strategy.reduction_factor",
        )
    return inner


def _low_rank_weights(strategy: LowRankSpec, path: str, layer: LinearShape) -> int:
    rank = _rank(strategy, path)
    magnitudes = layer.outputs if strategy.use_dora else 0
    return rank * (layer.inputs + layer.outputs) + magnitudes


def _rank(strategy: LowRankSpec, path: str) -> int:
    """Return the rank of a layer; the first pattern that matches decides, as in PEFT."""
    for pattern, rank in strategy.rank_pattern.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return rank
    return strategy.rank
