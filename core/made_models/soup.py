"""Soups: the weighted sum of several adapters of one base, as one adapter.

A low-rank update is a sum: Σ wᵢ sᵢ Bᵢ Aᵢ is the update of the concatenated matrices, exactly. If
the ranks add up to more than the width of a layer, its update is factored anew, which is exact,
too. Virtual tokens, vectors of (IA)³ and completely trained modules are added as they are.

The concatenation is that of PEFT's `add_weighted_adapter(combination_type="cat")`.
"""

# O outputs, I inputs, R rank

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor

from core.adapter_files.config import MAX_PATTERNS, MAX_RANK
from core.artifacts.manifest import ADAPTER_FILE, Manifest, read_manifest
from core.errors import InvalidRequest
from core.made_models.expressed import PREFIX
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import (
    Ia3Spec,
    LoraSpec,
    LowRankSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)

_A, _B = ".lora_A.weight", ".lora_B.weight"
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Ingredient:
    """A bundle and its weight in the sum."""

    manifest: Manifest
    state: Mapping[str, Tensor]
    weight: float


@dataclass(frozen=True)
class Soup:
    """The sum as an adapter of its own."""

    spec: JobSpec
    state: dict[str, Tensor]


def read_ingredient(folder: Path, weight: float) -> Ingredient:
    """Return the bundle in `folder`; InvalidRequest if it is a complete model."""
    manifest = read_manifest(folder)
    if manifest.weights_file != ADAPTER_FILE:
        raise _refused("a fully trained model is no adapter")
    return Ingredient(manifest, load_file(folder / ADAPTER_FILE), weight)


def soup(base: BaseModelSpec, ingredients: Sequence[Ingredient]) -> Soup:
    """Return the weighted sum; InvalidRequest if the adapters cannot be added."""
    first = ingredients[0].manifest
    for each in ingredients[1:]:
        _require_same(first, each.manifest)
    strategies = [each.manifest.strategy for each in ingredients]
    if all(isinstance(strategy, LoraSpec | QloraSpec) for strategy in strategies):
        strategy, state = _low_rank(ingredients)
    else:
        strategy, state = _linear(ingredients)
    spec = JobSpec(
        base=base,
        task=first.task,
        objective=first.objective,
        strategy=strategy,
        seed=0,
        chat_template_kwargs=first.chat_template_kwargs,
        template_time=first.template_time,
    )
    return Soup(spec, state)


def _require_same(first: Manifest, other: Manifest) -> None:
    for field, words in (
        ("task", "tasks"),
        ("chat_template_kwargs", "variables of the chat template"),
    ):
        if getattr(first, field) != getattr(other, field):
            raise _refused(f"the models have different {words}")
    labels = [getattr(each.objective, "labels", None) for each in (first, other)]
    if labels[0] != labels[1]:
        raise _refused("the classifiers have different labels, or another order of them")


def _low_rank(ingredients: Sequence[Ingredient]) -> tuple[StrategySpec, dict[str, Tensor]]:
    """Concatenate the matrices of each layer; the scale of the sum is 1."""
    if any(_strategy(each).use_dora for each in ingredients):
        raise _refused("DoRA scales the sum of base and update, so updates do not add")
    state = _sums(ingredients, lambda name: not name.endswith((_A, _B)))
    paths = list(dict.fromkeys(n.removesuffix(_A) for i in ingredients for n in i.state if _A in n))
    ranks: dict[str, int] = {}
    for path in paths:
        parts = [_scaled(each, path) for each in ingredients if f"{path}{_A}" in each.state]
        a_RI = torch.cat([a for a, _ in parts])
        b_OR = torch.cat([b for _, b in parts], dim=1)
        a_RI, b_OR = _within_width(a_RI, b_OR)
        state[f"{path}{_A}"], state[f"{path}{_B}"] = a_RI.contiguous(), b_OR.contiguous()
        ranks[path.removeprefix(PREFIX)] = len(a_RI)
    return _low_rank_spec(ingredients, ranks), state


def _scaled(each: Ingredient, path: str) -> tuple[Tensor, Tensor]:
    """Return A, with the weight and the scale in it, and B."""
    a_RI, b_OR = (each.state[f"{path}{part}"].float() for part in (_A, _B))
    strategy, name = _strategy(each), path.removeprefix(PREFIX)
    alpha = strategy.alpha_pattern.get(
        get_pattern_key(strategy.alpha_pattern.keys(), name), strategy.alpha
    )
    rank = len(a_RI)
    scale = alpha / (math.sqrt(rank) if strategy.use_rslora else rank)
    return a_RI * (each.weight * scale), b_OR


def _within_width(a_RI: Tensor, b_OR: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the same product with at most as many rows as the layer is wide."""
    width = min(a_RI.shape[1], b_OR.shape[0])
    if len(a_RI) <= width:
        return a_RI, b_OR
    product_OI = b_OR.double() @ a_RI.double()
    if product_OI.shape[1] == width:
        return torch.eye(width), product_OI.float()
    return product_OI.float(), torch.eye(width)


def _low_rank_spec(ingredients: Sequence[Ingredient], ranks: Mapping[str, int]) -> StrategySpec:
    """Return LoRA with scale 1 everywhere: alpha is the rank, also where the rank is another."""
    most = max(ranks.values())
    pattern = {path.replace(".", r"\."): rank for path, rank in ranks.items() if rank != most}
    if most > MAX_RANK or len(pattern) > MAX_PATTERNS:
        raise _refused(
            f"the ranks add up to {most}, or differ in {len(pattern)} layers; at most {MAX_RANK} "
            f"and {MAX_PATTERNS} are possible"
        )
    strategies = [_strategy(each) for each in ingredients]
    saved = tuple(dict.fromkeys(name for each in strategies for name in each.modules_to_save))
    names = {each.target_modules for each in strategies}
    targets = names.pop() if len(names) == 1 else tuple(ranks)
    return LoraSpec(
        rank=most,
        alpha=float(most),
        target_modules=targets,
        rank_pattern=pattern,
        alpha_pattern={path: float(rank) for path, rank in pattern.items()},
        modules_to_save=saved,
    )


def _linear(ingredients: Sequence[Ingredient]) -> tuple[StrategySpec, dict[str, Tensor]]:
    """Add tensors of the same names and shapes: virtual tokens, or vectors of (IA)³."""
    strategy = ingredients[0].manifest.strategy
    others = [each.manifest.strategy for each in ingredients[1:]]
    if not isinstance(strategy, PrefixSpec | PromptSpec | Ia3Spec):
        raise _refused(f"{strategy.type} adapters are no sums")
    if any(type(other) is not type(strategy) for other in others):
        raise _refused("the models have different strategies")
    if isinstance(strategy, PromptSpec):
        strategy = strategy.model_copy(update={"init_text": None})
    return strategy, _sums(ingredients, lambda name: True)


def _sums(ingredients: Sequence[Ingredient], is_summed: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return Σ wᵢ Mᵢ of the tensors that all adapters have in the same shape."""
    kept = [{n: t for n, t in each.state.items() if is_summed(n)} for each in ingredients]
    for each in kept[1:]:
        differing = sorted(each.keys() ^ kept[0].keys())
        differing += [n for n in each if n in kept[0] and each[n].shape != kept[0][n].shape]
        if differing:
            raise _refused(f"only some of the models have {differing[0]} in this shape")
    whole = [name for name in kept[0] if not name.endswith((".ia3_l", "prompt_embeddings"))]
    total = math.fsum(each.weight for each in ingredients)
    if whole and abs(total - 1) > _SUM_TOLERANCE:
        raise _refused(
            f"{whole[0]} is trained completely, so the weights must add up to 1, and add up to "
            f"{total:g}"
        )
    return {
        name: sum(
            (
                state[name].float() * each.weight
                for state, each in zip(kept, ingredients, strict=True)
            ),
            start=torch.zeros_like(kept[0][name], dtype=torch.float32),
        )
        for name in kept[0]
    }


def _strategy(each: Ingredient) -> LowRankSpec:
    assert isinstance(each.manifest.strategy, LowRankSpec)
    return each.manifest.strategy


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The models cannot be merged: {why}.", param="models", code="not_mergeable"
    )
