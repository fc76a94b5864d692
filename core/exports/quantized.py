"""Writes a model quantized by bitsandbytes, in the layout that transformers loads."""

import torch

from core.artifacts.manifest import read_manifest
from core.exports.bundle_files import copy_tokenizer
from core.exports.memory import require_disk, require_memory, weight_bytes
from core.exports.save import save_model
from core.exports.sources import stored_dtype
from core.models.load import load_base
from core.models.precision import name_of
from core.spec.base_model import BaseModelSpec
from core.spec.export_steps import QuantizeStep, Written

CPU = torch.device("cpu")


def write_quantized(step: QuantizeStep) -> Written:
    """Quantize the model in `step.model` while it is loaded, and save it into `step.out`.

    The linear layers of the blocks are quantized; head and embeddings stay dense.
    """
    task = read_manifest(step.bundle).task
    source = BaseModelSpec(id="merged", source=str(step.model))
    dtype = stored_dtype(source)
    require_memory(source, dtype, task, None, "to be quantized")
    step.out.mkdir(parents=True)
    require_disk(step.out, weight_bytes(source, dtype, task, None))
    quantized = source.model_copy(update={"quantization": step.quantization})
    model = load_base(quantized, dtype, CPU, task=task)
    save_model(model, step.out, step.model)
    copy_tokenizer(step.bundle, step.out)
    return Written(stored_in=name_of(dtype))
