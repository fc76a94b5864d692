"""A tuned model merged into its base, when it is first requested."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.artifacts.merge import merge
from core.artifacts.quantize import quantize
from core.engine.device.adapter_loading import fit_head, load_on
from core.engine.policy.request import BaseKey
from core.models.load import load_base
from core.models.precision import dtype_of


def load_merged(base: BaseKey, folder: Path, device: torch.device) -> PreTrainedModel:
    """Return the dense weights of a base, merged with the adapter in `folder`.

    Quantization follows the merge: the complete model is first in the CPU's memory, and only the
    quantized weights move to another device. Raises the errors of `load_base` and `load_on`.
    """
    quantization = base.spec.quantization
    plain = base.spec.model_copy(update={"quantization": None})
    at = device if quantization is None else torch.device("cpu")
    model = load_base(plain, dtype_of(base.precision), at, task=base.task)
    merge(load_on(model, str(base.merged_sha256), folder, fit_head))
    if quantization is not None:
        quantize(model, quantization, device)
    return model
