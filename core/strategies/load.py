"""From a bundle to the adapter that it holds, on a base that is in memory already."""

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
    """Return the adapter of the bundle in `folder`, not installed: `model` runs as before.

    No other adapter may be installed meanwhile. torch's generators stay as they are. Raises
    `artifact_corrupt` when there is no adapter in the bundle, or its weights are not exactly those
    of its strategy on this model.
    """
    manifest = read_manifest(folder)
    if manifest.weights_file != ADAPTER_FILE:
        raise corrupt(f"{folder.name} holds a whole model and no {ADAPTER_FILE}.")
    with torch.random.fork_rng(devices=[]):  # new weights are drawn on the CPU
        adapted = attach(model, manifest.strategy, tokenizer, prepack=False)
    adapted.remove()
    for module in adapted.replaced.values():
        module.train(model.training)  # new modules are in training mode
    load_weights(adapted, folder)
    return adapted


def load_weights(adapted: AdaptedModel, folder: Path) -> None:
    """Give an adapter the weights of the bundle in `folder`, which is of the same strategy.

    Raises `artifact_corrupt` when they are not exactly those of that strategy on this model.
    """
    try:
        state = load_file(folder / ADAPTER_FILE)
    except (OSError, SafetensorError) as error:
        raise corrupt(f"The {ADAPTER_FILE} of {folder.name} cannot be read: {error}") from error
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
                f"{name} in the {ADAPTER_FILE} of {bundle} is {tuple(state[name].shape)}; this "
                f"model takes {tuple(parameter.shape)}."
            )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state[name])
