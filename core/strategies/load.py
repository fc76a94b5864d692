"""Loads the adapter of a bundle onto a resident base."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.artifacts.manifest import ADAPTER_FILE, corrupt, read_manifest
from core.strategies.attach import attach


def load_adapter(
    model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> AdaptedModel:
    """Load the adapter of the bundle in `folder` without installing it.

    No other adapter may be installed at the same time. torch's generators do not change. Raises
    `artifact_corrupt` if the bundle has no adapter, or other weights than those of its strategy on
    this model.
    """
    manifest = read_manifest(folder)
    if manifest.weights_file != ADAPTER_FILE:
        raise corrupt(f"{folder.name} contains a complete model, not an {ADAPTER_FILE}.")
    with torch.random.fork_rng(devices=[]):  # new weights are initialized on the CPU
        adapted = attach(model, manifest.strategy, tokenizer, prepack=False)
    adapted.remove()
    for module in adapted.replaced.values():
        module.train(model.training)  # new modules start in training mode
    load_weights(adapted, folder)
    return adapted


def load_weights(adapted: AdaptedModel, folder: Path) -> None:
    """Load the weights of the bundle in `folder` into an adapter of the same strategy.

    Raises `artifact_corrupt` if they are not exactly those of that strategy on this model.
    """
    try:
        state = load_file(folder / ADAPTER_FILE)
    except (OSError, SafetensorError) as error:
        raise corrupt(f"Cannot read the {ADAPTER_FILE} of {folder.name}: {error}") from error
    _copy_state(adapted.trainable, state, folder.name)


def _copy_state(trainable: dict[str, nn.Parameter], state: dict[str, Tensor], bundle: str) -> None:
    differing = sorted(trainable.keys() ^ state.keys())
    if differing:
        name = differing[0]
        problem = "lacks" if name in trainable else "has the unexpected"
        raise corrupt(
            f"The {ADAPTER_FILE} of {bundle} {problem} {name} ({len(differing)} tensors differ "
            "from those of its strategy on this model)."
        )
    for name, parameter in trainable.items():
        if parameter.shape != state[name].shape:
            raise corrupt(
                f"{name} in the {ADAPTER_FILE} of {bundle} has shape {tuple(state[name].shape)}; "
                f"this model needs {tuple(parameter.shape)}."
            )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state[name])
