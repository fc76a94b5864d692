"""Which linear layers of a model a strategy means, and how PEFT calls what it is trained for."""

import difflib
from collections.abc import Iterable, Sequence

import peft
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.linear_layers import LinearLayer
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.strategy import Preset

PARAM = "strategy.target_modules"


def target_names(model: PreTrainedModel, targets: Preset | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names to look for; InvalidRequest when one of them is no linear layer."""
    if isinstance(targets, str):
        return family_of(model.config.model_type).layers.preset(targets)
    if not targets:
        raise InvalidRequest(
            "target_modules is empty: name at least one linear layer or a preset.", param=PARAM
        )
    paths = linear_paths(model)
    for name in targets:
        if any(is_named(path, name) for path in paths):
            continue
        for path, module in model.named_modules(remove_duplicate=False):
            if is_named(path, name) and _is_vocabulary(model, module):
                raise InvalidRequest(
                    f"{name!r} is the table of the vocabulary, for which there is no low-rank "
                    "update here. Name it in modules_to_save to train it whole.",
                    param=PARAM,
                    code="unsupported_target_module",
                )
        raise unknown_module(name, paths, PARAM)
    return targets


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Return the linear layers in the order of the model, without the output matrix."""
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
    """Return those of `paths` that any of `names` means, in their order."""
    names = tuple(names)
    return [path for path in paths if any(is_named(path, name) for name in names)]


def is_named(path: str, name: str) -> bool:
    """Say whether `name` is the path or its last parts, as PEFT matches target modules."""
    return path == name or path.endswith(f".{name}")


def is_quantised(module: nn.Module) -> bool:
    """Say whether bitsandbytes keeps the weight of this layer in four or eight bits."""
    weight = getattr(module, "weight", None)
    return hasattr(weight, "quant_state") or hasattr(weight, "SCB")


def peft_task(model: PreTrainedModel) -> peft.TaskType:
    """Return what PEFT calls the task of a model of this class."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return peft.TaskType.SEQ_CLS
    if model.config.is_encoder_decoder:
        return peft.TaskType.SEQ_2_SEQ_LM
    return peft.TaskType.CAUSAL_LM


def unknown_module(name: str, paths: Sequence[str], param: str) -> InvalidRequest:
    """Return the error for a name that fits none of `paths`; it suggests the nearest ones."""
    last_parts = sorted({path.rpartition(".")[2] for path in paths})
    named = [part for part in last_parts if not part.isdigit()]
    candidates = dict.fromkeys([*named, *paths])  # a path of one part is both
    near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    return InvalidRequest(
        f"The base model has no such layer as {name!r}. Nearest names: {', '.join(near or named)}.",
        param=param,
        code="unknown_target_module",
    )


def _is_vocabulary(model: PreTrainedModel, module: nn.Module) -> bool:
    return module is model.get_output_embeddings() or module is model.get_input_embeddings()
