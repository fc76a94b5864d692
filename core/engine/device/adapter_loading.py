"""Loads adapters from their folders onto a resident model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import is_out_of_memory
from core.artifacts.manifest import read_manifest
from core.catalog.families import family_of
from core.errors import Unavailable
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import PromptSpec
from core.strategies.load import load_adapter


def load_on(
    model: PreTrainedModel,
    sha256: str,
    folder: Path,
    fit: Callable[[PreTrainedModel, Path], None] = lambda model, folder: None,
) -> AdaptedModel:
    """Load the adapter in `folder` without installing it; Unavailable if it does not fit the base.

    `fit` may first change the model to fit the adapter.
    """
    with fit_or_unavailable(sha256):
        fit(model, folder)
        # only a soft prompt uses it: it is initialized from words before its weights are read
        has_words = isinstance(read_manifest(folder).strategy, PromptSpec)
        source = BaseModelSpec(id=sha256, source=str(folder))
        tokenizer = load_tokenizer(source) if has_words else None
        return load_adapter(model, folder, tokenizer)


@contextmanager
def fit_or_unavailable(sha256: str) -> Iterator[None]:
    """Raise Unavailable for any error of an adapter inside the block."""
    try:
        yield
    except Exception as error:
        raise Unavailable(
            f"The adapter {sha256[:12]} cannot be loaded on its base: {error}",
            param="adapter",
            code="engine_out_of_memory" if is_out_of_memory(error) else "adapter_corrupt",
            retry_after_seconds=60,
        ) from error


def fit_head(model: PreTrainedModel, folder: Path) -> None:
    """Replace the last layer of a classifier by one with the labels of the adapter in `folder`."""
    objective = read_manifest(folder).objective
    if not isinstance(objective, ClassificationSpec):
        return
    name = family_of(model.config.model_type).head[-1]
    last = model.get_submodule(name)
    if last.out_features != len(objective.labels):
        fitting = nn.Linear(last.in_features, len(objective.labels), bias=last.bias is not None)
        model.set_submodule(name, fitting.to(last.weight.device, last.weight.dtype))
