"""Resolves the target modules of a strategy, and PEFT's task type of a model."""

from collections.abc import Iterable, Sequence

import peft
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.linear_layers import LinearLayer
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.nearest import nearest
from core.spec.strategy import Preset

PARAM = "strategy.target_modules"


def target_names(model: PreTrainedModel, targets: Preset | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the target modules; InvalidRequest if one is not a linear layer."""
    if isinstance(targets, str):
        return family_of(model.config.model_type).layers.preset(targets)
    if not targets:
        raise InvalidRequest(
            "target_modules is empty; list at least one linear layer, or use a preset.", param=PARAM
        )
    paths = linear_paths(model)
    for name in targets:
        if any(is_named(path, name) for path in paths):
            continue
        for path, module in model.named_modules(remove_duplicate=False):
            if is_named(path, name) and _is_vocabulary(model, module):
                raise InvalidRequest(
                    f"{name!r} is an embedding matrix, not a linear layer of a block. List it in "
                    "modules_to_save to train all of its weights.",
                    param=PARAM,
                    code="unsupported_target_module",
                )
        raise unknown_module(name, paths, PARAM)
    return targets


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Return the paths of the linear layers in model order, without the output head."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not _is_vocabulary(model, module)
    ]


def linear_layer(model: PreTrainedModel, path: str) -> LinearLayer:
    """Return the layer at one of the `linear_paths`."""
    layer = model.get_submodule(path)
    assert isinstance(layer, (nn.Linear, Conv1D))
    return layer


def targeted_paths(paths: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the `paths` that match any of `names`, in order."""
    names = tuple(names)
    return [path for path in paths if any(is_named(path, name) for name in names)]


def is_named(path: str, name: str) -> bool:
    """Whether `name` is the path or a suffix of its parts, as PEFT matches target modules."""
    return path == name or path.endswith(f".{name}")


def is_quantized(module: nn.Module) -> bool:
    """Whether bitsandbytes stores the weight of this layer in four or eight bits."""
    weight = getattr(module, "weight", None)
    return hasattr(weight, "quant_state") or hasattr(weight, "SCB")


def peft_task(model: PreTrainedModel) -> peft.TaskType:
    """Return PEFT's task type of the model's class."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return peft.TaskType.SEQ_CLS
    if model.config.is_encoder_decoder:
        return peft.TaskType.SEQ_2_SEQ_LM
    return peft.TaskType.CAUSAL_LM


def unknown_module(name: str, paths: Sequence[str], param: str) -> InvalidRequest:
    """Return the error for a name that matches none of `paths`, with the closest names."""
    last_parts = sorted({path.rpartition(".")[2] for path in paths})
    named = [part for part in last_parts if not part.isdigit()]
    candidates = dict.fromkeys([*named, *paths])  # a path of one part is both
    near = nearest(name, candidates, most=3, cutoff=0.5)
    return InvalidRequest(
        f"The base model has no layer {name!r}. The closest names are {', '.join(near or named)}.",
        param=param,
        code="unknown_target_module",
    )


def _is_vocabulary(model: PreTrainedModel, module: nn.Module) -> bool:
    return module is model.get_output_embeddings() or module is model.get_input_embeddings()
