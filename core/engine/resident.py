"""A base model in memory with the adapters that are loaded on it, one active at a time."""

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.artifacts.manifest import read_manifest
from core.catalog.families import family_of
from core.engine.request import BaseKey
from core.engine.residency import Residency
from core.errors import Unavailable
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_tokenizer
from core.spec.objective import ClassificationSpec
from core.spec.run import BaseModelSpec
from core.spec.strategy import PromptSpec
from core.strategies.load import load_adapter


def load_resident(base: BaseKey, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load a base as the engine runs it: classifiers read texts packed, as in training."""
    model = load_base(base.spec, dtype, device, task=base.task)
    if base.task == "classification":
        use_packed_attention(model)
    return model


class ResidentBase:
    """Owns the model and the layers of its adapters, named by the hash of their archive.

    The model's own modules stay what they are: an adapter is switched on by putting its layers in
    their places, and off by putting them back.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
    ) -> None:
        self._plain = self._active = AdaptedModel(model.eval(), trainable={}, config=None)
        self._adapters: Residency[str, AdaptedModel] = Residency(max_adapters, self._load)
        self._adapter_folder = adapter_folder

    def resident_adapters(self) -> list[str]:
        return self._adapters.keys()

    def activate(self, adapter_sha256: str | None, in_use: Collection[str]) -> AdaptedModel:
        """Return the model with this adapter switched on, or none.

        Loads the adapter when it is not resident, in place of one that is not `in_use`.
        Raises Unavailable `adapter_corrupt` when it does not fit the base.
        """
        wanted = self._plain
        if adapter_sha256 is not None:
            wanted = self._adapters.acquire(adapter_sha256, in_use)
        self._switch(wanted)
        return wanted

    def _switch(self, wanted: AdaptedModel) -> None:
        if wanted is not self._active:
            self._active.remove()
            wanted.install()
            self._active = wanted

    def _load(self, sha256: str) -> AdaptedModel:
        self._switch(self._plain)
        model, folder = self._plain.model, self._adapter_folder(sha256)
        try:
            manifest = read_manifest(folder)
            if isinstance(manifest.objective, ClassificationSpec):
                _fit_head(model, len(manifest.objective.labels))
            # only a soft prompt asks for it, to be made of words before its weights are read
            has_words = isinstance(manifest.strategy, PromptSpec)
            source = BaseModelSpec(id=sha256, source=str(folder))
            tokenizer = load_tokenizer(source) if has_words else None
            return load_adapter(model, folder, tokenizer)
        except Exception as error:
            raise Unavailable(
                f"The adapter {sha256[:12]} cannot be loaded on its base: {error}",
                param="adapter",
                code="adapter_corrupt",
                retry_after_seconds=60,
            ) from error


def _fit_head(model: PreTrainedModel, labels: int) -> None:
    """Give the base of classifiers a last layer for so many labels; each adapter brings its own."""
    name = family_of(model.config.model_type).head[-1]
    last = model.get_submodule(name)
    if last.out_features != labels:
        fitting = nn.Linear(last.in_features, labels, bias=last.bias is not None)
        model.set_submodule(name, fitting.to(last.weight.device, last.weight.dtype))
