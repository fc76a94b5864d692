"""Modules of the base whose weights are all trained beside an adapter: PEFT's `modules_to_save`."""

import copy
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.adapters.targets import is_quantized, unknown_module
from core.catalog.families import family_of
from core.errors import InvalidRequest

PARAM = "strategy.modules_to_save"


def classifier_head(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the modules that a classifier adds to its base; empty for other models."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return ()
    return family_of(model.config.model_type).head


def is_inside(path: str, modules_to_save: Iterable[str]) -> bool:
    """Return whether a layer is part of a module in `modules_to_save`, as PEFT matches names."""
    return any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", path) for name in modules_to_save)


def trainable_copies(model: PreTrainedModel, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return a trainable copy of every module whose path ends with one of `names`, by path.

    The copies compute in fp32 (fp64 in an fp64 model) for any dtype of the model. Tied weights are
    copied and untied, as in PEFT. Raises InvalidRequest if a name matches no module, or one that
    cannot be trained.
    """
    copies: dict[str, nn.Module] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        paths = [path for path in modules if name and path.endswith(name)]
        if not paths:
            raise unknown_module(name, [path for path in modules if path], PARAM)
        for path in paths:
            _require_trainable(path, modules[path])
            copies[path] = _trainable_copy(modules[path])
    # a nested module is part of the copy of the outer one
    inside = {p for p in copies for q in copies if p.startswith(f"{q}.")}
    return {path: copies[path] for path in copies if path not in inside}


def weights_by_name(copies: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the weights of `trainable_copies` by their names in PEFT's files."""
    return {
        f"base_model.model.{path}.{name}": parameter
        for path, module in copies.items()
        for name, parameter in module.named_parameters()
    }


def _require_trainable(path: str, module: nn.Module) -> None:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        reason = "is a list of modules; name a module inside it"
    elif any(is_quantized(part) for part in module.modules()):
        reason = "is quantized, and quantized weights cannot be trained"
    elif not any(True for _ in module.parameters()):
        reason = "has no weights"
    else:
        return
    raise InvalidRequest(
        f"modules_to_save cannot contain {path}: the module {reason}.",
        param=PARAM,
        code="unsupported_target_module",
    )


def _trainable_copy(module: nn.Module) -> nn.Module:
    dtype = next(module.parameters()).dtype
    wide = torch.promote_types(dtype, torch.float32)
    copied = copy.deepcopy(module).to(wide).requires_grad_(True)
    if wide != dtype:
        # hooks instead of a wrapper keep the type of the module and the names of its weights
        copied.register_forward_pre_hook(
            lambda _, args, kwargs: (_cast(args, wide), _cast(kwargs, wide)), with_kwargs=True
        )
        copied.register_forward_hook(lambda _, __, output: _cast(output, dtype))
    return copied


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return `value` with all of its floating-point tensors cast to `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(part, dtype) for part in value)
    if isinstance(value, dict):
        return {key: _cast(part, dtype) for key, part in value.items()}
    return value
