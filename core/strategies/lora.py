"""LoRA: which linear layers get a low-rank update, and how PEFT calls the result."""

import difflib
from collections.abc import Iterable

import peft
from torch import nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.lora import LoraLinear
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.strategy import LoraSpec

LARGEST_PREPACKED_BASE_BYTES = 2**30
"""Prepacked weights triple the memory of a base; beyond this size memory is worth more."""


def attach_lora(model: PreTrainedModel, spec: LoraSpec) -> AdaptedModel:
    """Put a `LoraLinear` in the place of every targeted layer; nothing else is trained."""
    model.requires_grad_(False)
    targets = _target_names(model, spec)
    prepack = _weight_bytes(model) <= LARGEST_PREPACKED_BASE_BYTES
    trainable: dict[str, nn.Parameter] = {}
    layers: dict[str, nn.Module] = {}
    for path in _targeted_paths(_linear_paths(model), targets):
        base_layer = model.get_submodule(path)
        layer = layers[path] = LoraLinear(base_layer, spec.rank, spec.alpha, spec.dropout, prepack)
        trainable[f"base_model.model.{path}.lora_A.weight"] = layer.lora_A
        trainable[f"base_model.model.{path}.lora_B.weight"] = layer.lora_B
    adapted = AdaptedModel(model, trainable, _peft_config(spec, targets), layers)
    adapted.install()
    return adapted


def _weight_bytes(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _target_names(model: PreTrainedModel, spec: LoraSpec) -> tuple[str, ...]:
    """Return the names to look for; InvalidRequest when one of them is nowhere in the model."""
    if isinstance(spec.target_modules, str):
        return family_of(model.config.model_type).presets[spec.target_modules]
    paths = _linear_paths(model)
    for name in spec.target_modules:
        if not any(_is_named(path, name) for path in paths):
            raise _unknown_module(name, paths)
    if not spec.target_modules:
        raise InvalidRequest(
            "target_modules is empty: name at least one linear layer or a preset.",
            param="strategy.target_modules",
        )
    return spec.target_modules


def _linear_paths(model: PreTrainedModel) -> list[str]:
    """Return the linear layers in the order of the model, without the output matrix."""
    output = model.get_output_embeddings()
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]


def _targeted_paths(paths: Iterable[str], names: Iterable[str]) -> list[str]:
    names = tuple(names)
    return [path for path in paths if any(_is_named(path, name) for name in names)]


def _is_named(path: str, name: str) -> bool:
    """Say whether `name` is the path or its last parts, as PEFT matches target modules."""
    return path == name or path.endswith(f".{name}")


def _unknown_module(name: str, paths: list[str]) -> InvalidRequest:
    last_parts = sorted({path.rpartition(".")[2] for path in paths})
    near = difflib.get_close_matches(name, [*last_parts, *paths], n=3, cutoff=0.5)
    return InvalidRequest(
        f"The base model has no trainable linear layer named {name!r}. "
        f"Nearest names: {', '.join(near or last_parts)}.",
        param="strategy.target_modules",
        code="unknown_target_module",
    )


def _peft_config(spec: LoraSpec, targets: tuple[str, ...]) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=spec.rank,
        lora_alpha=int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(targets),
    )
