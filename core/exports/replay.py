"""Loads an export with the library that it is for, and scores rows with it.

Nothing of this project is in the way: transformers and PEFT load the folder as its users do.
"""

import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from core.artifacts.manifest import Manifest, read_manifest
from core.catalog.tasks import TASKS
from core.exports.memory import require_memory
from core.exports.scoring import score
from core.exports.sources import labels_of, stored_dtype
from core.models.load import folder_of
from core.models.precision import dtype_of
from core.models.sixteen_bit_products import ensure_products
from core.spec.base_model import BaseModelSpec
from core.spec.export_steps import ReplayedFigures, ReplayStep

CPU = torch.device("cpu")


def replay(step: ReplayStep) -> ReplayedFigures:
    """Return what the exported model says about the rows of `step.served`."""
    manifest = read_manifest(step.bundle)
    if step.options.form == "adapter":
        model = _with_peft(step, manifest)
    else:
        model = _complete(step.folder, manifest)
    served = step.served
    figures = score(model, served.rows, served.task, multi_label=served.multi_label)
    return ReplayedFigures(figures=figures)


def _complete(folder: Path, manifest: Manifest) -> Any:
    source = BaseModelSpec(id="export", source=str(folder))
    dtype = stored_dtype(source)
    is_quantized = "quantization_config" in json.loads((folder / "config.json").read_text())
    if not is_quantized:
        require_memory(source, dtype, manifest.task, None, "to replay rows")
    options = {"device_map": {"": CPU}} if is_quantized else {}
    return _loaded(folder, manifest, dtype, **options)


def _with_peft(step: ReplayStep, manifest: Manifest) -> Any:
    """Load the adapter on its base, which has the number format that it is served in."""
    plain = step.base.model_copy(update={"quantization": None})
    dtype = dtype_of(manifest.precision) if manifest.precision else stored_dtype(plain)
    labels = labels_of(manifest)
    require_memory(plain, dtype, manifest.task, labels, "to replay rows")
    options = {} if labels is None else {"num_labels": labels, "ignore_mismatched_sizes": True}
    base = _loaded(folder_of(plain, has_weights=True), manifest, dtype, **options)
    return peft.PeftModel.from_pretrained(base, str(step.folder)).eval()


def _loaded(folder: Path, manifest: Manifest, dtype: torch.dtype, **options: Any) -> Any:
    model: Any = getattr(transformers, TASKS[manifest.task].model_class).from_pretrained(
        folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
    )
    ensure_products(CPU, dtype)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # it cannot repack narrow layers
            module.support_avx512bf16_for_cpu = False
    return model.eval()
