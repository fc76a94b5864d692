"""Modules of the base that are trained whole beside an adapter, as PEFT's `modules_to_save`."""

import copy
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.adapters.targets import is_quantised, unknown_module
from core.catalog.families import family_of
from core.errors import InvalidRequest

PARAM = "strategy.modules_to_save"


def classifier_head(model: PreTrainedModel) -> tuple[str, ...]:
    """Name what a classifier adds to its base; nothing for a model that is none."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return ()
    return family_of(model.config.model_type).head


def is_inside(path: str, whole: Iterable[str]) -> bool:
    """Say whether PEFT takes a layer for part of a module that is trained whole."""
    return any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", path) for name in whole)


def trainable_copies(model: PreTrainedModel, names: Iterable[str]) -> dict[str, nn.Module]:
    """Return by path a trainable copy of every module whose path ends with one of `names`.

    They are fp32 inside (fp64 in an fp64 model), whatever the model around them is. A weight that
    a module shares with another one is copied with it and tied no more, as in PEFT. Raises
    InvalidRequest when a name fits no module, or one that cannot be trained.
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
    # a module inside another one is part of that one's copy
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
        reason = "a list of modules, not one of them: name a module inside it"
    elif any(is_quantised(part) for part in module.modules()):
        reason = "quantised, and quantised weights cannot be trained"
    elif not any(True for _ in module.parameters()):
        reason = "without weights"
    else:
        return
    raise InvalidRequest(
        f"The module {path} cannot be trained whole: it is {reason}.",
        param=PARAM,
        code="unsupported_target_module",
    )


def _trainable_copy(module: nn.Module) -> nn.Module:
    dtype = next(module.parameters()).dtype
    wide = torch.promote_types(dtype, torch.float32)
    copied = copy.deepcopy(module).to(wide).requires_grad_(True)
    if wide != dtype:
        # hooks and no wrapper: the module keeps its type and the names of its weights
        copied.register_forward_pre_hook(
            lambda _, args, kwargs: (_cast(args, wide), _cast(kwargs, wide)), with_kwargs=True
        )
        copied.register_forward_hook(lambda _, __, output: _cast(output, dtype))
    return copied


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return `value` with the floating-point tensors in it as numbers of `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(part, dtype) for part in value)
    if isinstance(value, dict):
        return {key: _cast(part, dtype) for key, part in value.items()}
    return value
