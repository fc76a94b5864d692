"""Bundles with random weights, as training writes them, in storage."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from core.adapters.adapted import AdaptedModel
from core.artifacts.archive import pack
from core.artifacts.manifest import ADAPTER_FILE, write_manifest
from core.models.load import load_base
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec, Task
from core.spec.strategy import StrategySpec
from core.storage.blobs import BlobStore
from core.strategies.attach import attach


@dataclass(frozen=True)
class Bundle:
    base: BaseModelSpec
    strategy: StrategySpec
    task: Task
    folder: Path
    ref: BundleRef


def write_bundle(
    folder: Path,
    store: BlobStore,
    base: BaseModelSpec,
    strategy: StrategySpec,
    task: Task = "generation",
    objective: ObjectiveSpec | None = None,
    seed: int = 0,
) -> Bundle:
    """Attach the strategy to its base, move what it trains, and store the result."""
    objective = objective or SupervisedSpec()
    labels = len(objective.labels) if isinstance(objective, ClassificationSpec) else None
    torch.manual_seed(seed)
    model = load_base(base, torch.float32, torch.device("cpu"), task=task, labels=labels)
    tokenizer = AutoTokenizer.from_pretrained(base.source)
    adapted = attach(model, strategy, tokenizer)
    with torch.no_grad():
        for parameter in adapted.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    _save(adapted, folder)
    tokenizer.save_pretrained(folder)
    spec = JobSpec(base=base, task=task, objective=objective, strategy=strategy, seed=0)
    write_manifest(folder, spec)
    archive = folder.with_suffix(".zip")
    sha256 = pack(folder, archive)
    key = f"bundles/{sha256[:12]}/final.zip"
    store.write_file(key, archive)
    return Bundle(base, strategy, task, folder, BundleRef(key=key, sha256=sha256))


def _save(adapted: AdaptedModel, folder: Path) -> None:
    folder.mkdir()
    if adapted.config is None:
        adapted.model.save_pretrained(folder)
        return
    adapted.config.inference_mode = True
    adapted.config.save_pretrained(str(folder))
    save_file(adapted.state(), folder / ADAPTER_FILE, metadata={"format": "pt"})
