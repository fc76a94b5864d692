"""Reads the weights of an adapter for a base: by the plan of `Expressed`, and all finite."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapters.adapted import AdaptedModel
from core.made_models.expressed import PREFIX, Expressed
from core.spec.adapter_file import WEIGHTS_FILE


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checked folder; RefusedAdapter if a number is not finite."""
    state = load_file(folder / WEIGHTS_FILE)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise RefusedAdapter(
                f"{shown(name)} has numbers that are not finite (NaN or infinite): the training "
                "diverged, or the file is damaged."
            )
    return state


def our_weights(
    expressed: Expressed, state: Mapping[str, Tensor], model: PreTrainedModel
) -> dict[str, Tensor]:
    """Return the tensors of our bundle by name, on the CPU. `model` has the weights of the base."""
    weights = {ours: state[theirs] for ours, theirs in expressed.kept.items()}
    if expressed.first_rows is not None:
        weights["prompt_embeddings"] = weights["prompt_embeddings"][: expressed.first_rows]
    for name, folds in expressed.folds.items():
        folded = _parameter(model, name).detach().float().cpu()
        for fold in folds:
            folded = fold.apply(folded, state)
        weights[name] = folded
    return weights


def require_own_head(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Raise RefusedAdapter if `weights`, which should be the base's, were drawn at random.

    They come from a model that was loaded with another seed than `model`.
    """
    for name, weight in weights.items():
        if not torch.equal(_parameter(model, name).float().cpu(), weight):
            raise RefusedAdapter(
                f"The base has no {shown(name.removeprefix(PREFIX))}, so that of the training is "
                "lost. Save the adapter with this module in modules_to_save."
            )


def _parameter(model: PreTrainedModel, name: str) -> Tensor:
    """Return the weight of the base that has this name in PEFT's files."""
    return model.get_parameter(name.removeprefix(PREFIX).removeprefix("base_model."))


def require_complete(adapted: AdaptedModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise RefusedAdapter unless the shapes are exactly those of the strategy on this model."""
    for name, parameter in adapted.trainable.items():
        if name not in shapes:
            raise RefusedAdapter(
                f"The adapter lacks {shown(name)}, which its adapter_config.json promises."
            )
        if shapes[name] != tuple(parameter.shape):
            raise RefusedAdapter(
                f"{shown(name)} has the shape {list(shapes[name])}, but this base needs "
                f"{list(parameter.shape)}. The adapter may belong to another base."
            )
    for name in shapes:
        if name not in adapted.trainable:
            raise RefusedAdapter(f"The adapter has {shown(name)}, which its config does not name.")


def copy_weights(adapted: AdaptedModel, weights: Mapping[str, Tensor]) -> None:
    """Load the tensors into an adapter of the same names and shapes."""
    with torch.no_grad():
        for name, parameter in adapted.trainable.items():
            parameter.copy_(weights[name])
