"""Attaches low-rank updates to a base, and describes them in PEFT's config."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import peft
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.adapted import AdaptedModel
from core.adapters.dora import DoraLinear
from core.adapters.linear_layers import LinearLayer
from core.adapters.lora import LoraLinear
from core.adapters.modules_to_save import (
    classifier_head,
    is_inside,
    trainable_copies,
    weights_by_name,
)
from core.adapters.targets import (
    linear_layer,
    linear_paths,
    peft_task,
    target_names,
    targeted_paths,
    unknown_module,
)
from core.errors import InvalidRequest
from core.spec.strategy import LowRankSpec

Number = TypeVar("Number", int, float)

LARGEST_PREPACKED_BASE_BYTES = 2**30
"""Prepacking triples the memory of the base's weights, so larger bases are not prepacked."""


def attach_low_rank(
    model: PreTrainedModel, spec: LowRankSpec, *, prepack: bool = True
) -> AdaptedModel:
    """Replace every targeted layer by a `LoraLinear` or `DoraLinear`.

    Only these, `modules_to_save` and the head of a classifier are trained. With `prepack`, the
    matrices of a small base are prepacked for speed, which needs two more copies. Raises
    InvalidRequest if the spec does not fit the model, and leaves the model unchanged.
    """
    names = target_names(model, spec.target_modules)
    modules_to_save = tuple(dict.fromkeys((*classifier_head(model), *spec.modules_to_save)))
    targeted = targeted_paths(linear_paths(model), names)
    paths = [path for path in targeted if not is_inside(path, modules_to_save)]
    if not paths:
        raise InvalidRequest(
            "modules_to_save contains all target_modules, so no layer gets a low-rank update. "
            "Remove some of them from modules_to_save.",
            param="strategy.target_modules",
        )
    _require_used(spec.rank_pattern, paths, "strategy.rank_pattern")
    _require_used(spec.alpha_pattern, paths, "strategy.alpha_pattern")
    ranks = {path: _by_pattern(spec.rank_pattern, path, spec.rank) for path in paths}
    layers = {path: linear_layer(model, path) for path in paths}
    for path, layer in layers.items():
        is_own = get_pattern_key(spec.rank_pattern.keys(), path) in spec.rank_pattern
        param = "strategy.rank_pattern" if is_own else "strategy.rank"
        _require_narrower(path, ranks[path], layer, param)
    copies = trainable_copies(model, modules_to_save)

    model.requires_grad_(False)
    prepack = prepack and _weight_bytes(model) <= LARGEST_PREPACKED_BASE_BYTES
    layer_class = DoraLinear if spec.use_dora else LoraLinear
    trainable: dict[str, nn.Parameter] = {}
    replaced: dict[str, nn.Module] = {}
    for path, layer in layers.items():
        alpha = _by_pattern(spec.alpha_pattern, path, spec.alpha)
        scale = alpha / (math.sqrt(ranks[path]) if spec.use_rslora else ranks[path])
        adapter = layer_class(layer, ranks[path], scale, spec.dropout, prepack)
        replaced[path] = adapter
        for name, weight in adapter.named_weights().items():
            trainable[f"base_model.model.{path}.{name}"] = weight
    adapted = AdaptedModel(
        model,
        trainable | weights_by_name(copies),
        _peft_config(model, spec, names, modules_to_save, layers.values()),
        replaced | copies,
    )
    adapted.install()
    return adapted


def _by_pattern(patterns: dict[str, Number], path: str, otherwise: Number) -> Number:
    return patterns.get(get_pattern_key(patterns.keys(), path), otherwise)


def _require_used(patterns: Iterable[str], paths: Sequence[str], param: str) -> None:
    for pattern in patterns:
        # PEFT's function returns the path itself if no pattern matches
        if all(path != pattern and get_pattern_key([pattern], path) == path for path in paths):
            raise unknown_module(pattern, paths, param)


def _require_narrower(path: str, rank: int, layer: LinearLayer, param: str) -> None:
    if isinstance(layer, Conv1D):
        width = min(layer.weight.shape)
    else:
        width = min(layer.in_features, layer.out_features)
    if rank > width:
        raise InvalidRequest(
            f"Rank {rank} is above the width {width} of {path}. Use at most {width}, or set the "
            "rank of this layer in rank_pattern.",
            param=param,
            code="rank_above_width",
        )


def _weight_bytes(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _peft_config(
    model: PreTrainedModel,
    spec: LowRankSpec,
    names: Sequence[str],
    modules_to_save: Sequence[str],
    layers: Iterable[LinearLayer],
) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type=peft_task(model),
        r=spec.rank,
        lora_alpha=_plain(spec.alpha),
        lora_dropout=spec.dropout,
        target_modules=list(names),
        rank_pattern=dict(spec.rank_pattern),
        alpha_pattern={path: _plain(alpha) for path, alpha in spec.alpha_pattern.items()},
        use_rslora=spec.use_rslora,
        use_dora=spec.use_dora,
        modules_to_save=list(modules_to_save) or None,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers),
    )


def _plain(alpha: float) -> int | float:
    """Return integral values as int, as most readers of the config expect."""
    return int(alpha) if alpha.is_integer() else alpha
