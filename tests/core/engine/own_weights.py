"""What transformers, PEFT and bitsandbytes make of a base and an adapter, for comparison."""

from pathlib import Path

import torch
from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant
from peft import PeftModel
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.modules_to_save import classifier_head
from core.artifacts.quantize import layers_to_quantize
from core.models.load import load_base, make_rows_independent
from core.spec.base_model import BaseModelSpec, Quantization
from core.spec.objective import Task


def plain(base: BaseModelSpec, task: Task = "generation", labels: int | None = None):
    return load_base(
        base.model_copy(update={"quantization": None}),
        torch.float32,
        torch.device("cpu"),
        task=task,
        labels=labels,
    )


def merged(base: BaseModelSpec, folder: Path, **task) -> PreTrainedModel:
    """PEFT's own merge onto the plain base."""
    return PeftModel.from_pretrained(plain(base, **task), folder).merge_and_unload().eval()


def quantized(
    model: PreTrainedModel, quantization: Quantization | None, folder: Path
) -> PreTrainedModel:
    """Quantize a dense model with bitsandbytes: NF4 by transformers, from a file in `folder`.

    Of int8 we use the weights alone, so there the reference is a dense model with those.
    """
    if quantization == "nf4":
        model.save_pretrained(folder)
        dense = ("lm_head", *classifier_head(model))
        model = type(model).from_pretrained(
            folder,
            dtype=torch.float32,
            device_map={"": "cpu"},
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float32,
                llm_int8_skip_modules=[rf"(.*\.)?{name}" for name in dense],
            ),
        )
        make_rows_independent(model)  # bitsandbytes cannot lay matrices of this size out anew
        return model.eval()
    if quantization == "int8":
        with torch.no_grad():
            for layer in layers_to_quantize(model).values():
                round_to_eight_bits(layer)
    return model


def round_to_eight_bits(layer: nn.Linear | Conv1D) -> None:
    weight = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
    rows, scales, _ = int8_vectorwise_quant(weight.half().contiguous())
    rounded = int8_vectorwise_dequant(rows, scales)
    layer.weight.copy_(rounded.t() if isinstance(layer, Conv1D) else rounded)
