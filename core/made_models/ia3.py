"""(IA)³ of PEFT as `Ia3Spec`: the shape of a vector says whether it scales inputs or outputs."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapters.modules_to_save import classifier_head, is_inside
from core.adapters.targets import is_named, linear_paths, targeted_paths
from core.made_models.expressed import (
    PREFIX,
    Expressed,
    Groups,
    built,
    is_vocabulary,
    layer_shape,
    require_shape,
    saved_names,
    unexpected,
)
from core.made_models.names import Named
from core.spec.strategy import Ia3Spec


def express_ia3(fields: Mapping[str, Any], groups: Groups, model: PreTrainedModel) -> Expressed:
    """Return the adapter as `Ia3Spec`; RefusedAdapter if it does not fit the model."""
    saved, kept = saved_names(model, fields.get("modules_to_save") or (), groups)
    on_input: dict[str, bool] = {}
    conv = False
    for path, parts in groups.items():
        for part, each in parts.items():
            if part != "ia3_l":
                if f"{PREFIX}{path}.{part}" not in kept:
                    raise unexpected(each, "which is no vector of (IA)³, and PEFT would ignore")
                continue
            module = model.get_submodule(path)
            on_input[path] = _scales_input(each, module, model)
            conv = conv or isinstance(module, Conv1D)
            kept[f"{PREFIX}{path}.ia3_l"] = each.tensor.name
    if not on_input:
        raise RefusedAdapter("The adapter has no ia3_l: it would do nothing.")
    targets, feed_forward = _names(fields, model, on_input, saved)
    return Expressed(
        strategy=built(
            Ia3Spec,
            target_modules=targets,
            feedforward_modules=feed_forward,
            modules_to_save=tuple(name for name in saved if name not in classifier_head(model)),
        ),
        kept=kept,
        peft_fields={
            "target_modules": list(on_input),
            "feedforward_modules": [path for path, is_input in on_input.items() if is_input],
            "modules_to_save": list(saved) or None,
            "fan_in_fan_out": conv,
        },
        peft_names={
            f"{PREFIX}{each.path}.{part}": each.tensor.name
            for parts in groups.values()
            for part, each in parts.items()
        },
    )


def _scales_input(each: Named, module: nn.Module, model: PreTrainedModel) -> bool:
    if not isinstance(module, (nn.Linear, Conv1D)) or is_vocabulary(model, module):
        raise RefusedAdapter(
            f"{shown(each.path)} is a {type(module).__name__} or a matrix of the vocabulary; (IA)³ "
            "is served on linear layers of the blocks."
        )
    outputs, inputs = layer_shape(module)
    is_row = len(each.shape) == 2 and each.shape[0] == 1
    require_shape(each, (1, inputs) if is_row else (outputs, 1))
    return is_row


def _names(
    fields: Mapping[str, Any],
    model: PreTrainedModel,
    on_input: Mapping[str, bool],
    saved: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the config's names if they mean exactly these layers, else the full paths."""
    names, inner = fields.get("target_modules"), fields.get("feedforward_modules") or []
    linear = linear_paths(model)
    if isinstance(names, list) and isinstance(inner, list):
        used = [name for name in names if any(is_named(path, name) for path in linear)]
        meant = {
            path: path.endswith(tuple(inner))
            for path in targeted_paths(linear, used)
            if not is_inside(path, saved)
        }
        if meant == on_input and set(inner) <= set(used):
            return tuple(used), tuple(inner)
    targets = tuple(path for path in linear if path in on_input)
    return targets, tuple(path for path in targets if on_input[path])
