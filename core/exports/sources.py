"""The folder with the weights of a tuned model: its base, or its own bundle if it is complete."""

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig

from core.artifacts.manifest import Manifest
from core.catalog.base_files import weight_files
from core.catalog.strategies import STRATEGIES
from core.models.load import folder_of, load_config
from core.spec.base_model import BaseModelSpec
from core.spec.objective import ClassificationSpec


def model_source(base: BaseModelSpec, bundle: Path, manifest: Manifest) -> BaseModelSpec:
    """Return the base with its catalog's quantization; the bundle after full fine-tuning."""
    if STRATEGIES[manifest.strategy.type].full_model:
        return BaseModelSpec(id=base.id, source=str(bundle))
    return base


def labels_of(manifest: Manifest) -> int | None:
    """Return the number of labels of a classifier."""
    objective = manifest.objective
    return len(objective.labels) if isinstance(objective, ClassificationSpec) else None


def stored_dtype(source: BaseModelSpec) -> torch.dtype:
    """Return the dtype of the stored weights, by the config or else by the first matrix."""
    return _named(load_config(source)) or _first(folder_of(source, has_weights=True))


def _named(config: PreTrainedConfig) -> torch.dtype | None:
    dtype = getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _first(folder: Path) -> torch.dtype:
    with safe_open(weight_files(folder)[0], framework="pt") as file:
        dtypes = (file.get_tensor(name).dtype for name in file.keys())  # noqa: SIM118
        return next((each for each in dtypes if each.is_floating_point), torch.float32)
