"""A step of real training code on the pretend device, and the memory that it takes there."""

from tests.pretend_cuda.device import CUDA, PretendCuda

# ruff: noqa: I001
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.adapted import AdaptedModel
from core.batching.rows import LabelledRow, Row, SourceTargetRow, TrainingRow
from core.catalog.families import family_of
from core.models.attention import use_packed_attention
from core.models.load import _MODEL_CLASSES
from core.models.precision import dtype_of
from core.objectives.choose import choose_objective
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import QloraSpec
from core.strategies.attach import attach
from core.training.activations import _checkpoint_layers
from core.training.optimizer import TrainingOptimizer, build_optimizer
from core.training.step import accumulate_gradients
from tests.core.tiny import tiny_tokenizer


@dataclass(frozen=True)
class Counted:
    """Bytes on the device beyond those before the step."""

    kept: int
    """At the end of the forward pass."""
    peak: int
    """Of forward and backward pass."""
    gradients: int
    """After the backward pass."""


@dataclass(frozen=True)
class OnDevice:
    """A job on the pretend device. Use it inside the block of its device."""

    spec: JobSpec
    adapted: AdaptedModel
    optimizer: TrainingOptimizer


def on_device(spec: JobSpec, config: dict[str, Any]) -> OnDevice:
    """Return the model of a job with random weights, as a run would load it."""
    labels = spec.objective.labels if isinstance(spec.objective, ClassificationSpec) else ()
    options = dict(config) | ({"num_labels": len(labels)} if labels else {})
    dtype = dtype_of(spec.training.precision)  # type: ignore[arg-type]
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    described = AutoConfig.for_model(**options)
    with torch.device("meta"):  # nothing draws weights, which would never end without values
        model: PreTrainedModel = _MODEL_CLASSES[spec.task].from_config(described)
    torch.set_default_dtype(usual)
    model.to_empty(device=CUDA)
    model.tie_weights()
    model.requires_grad_(False).eval()
    if isinstance(spec.strategy, QloraSpec):
        _quantize(model)
    if family_of(described.model_type).layout == "packed":
        use_packed_attention(model)
    adapted = attach(model, spec.strategy, tiny_tokenizer(described.model_type))
    optimizer = build_optimizer(adapted, spec, dtype)
    if spec.training.gradient_checkpointing is True:
        _checkpoint_layers(adapted.model)
    return OnDevice(spec, adapted, optimizer)


def count_step(device: PretendCuda, job: OnDevice, rows: list[TrainingRow]) -> Counted:
    """Return the memory of forward and backward passes of one step."""
    objective = choose_objective(job.spec, tiny_tokenizer(job.adapted.model.config.model_type))
    budget = job.spec.training.micro_batch_tokens
    objective.prepare(job.adapted, rows, budget)
    before, kept = device.memory.used, 0
    device.reset()

    def at_the_end_of_forward(loss: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept = max(kept, device.memory.used - before)
        return job.optimizer.scale(loss)

    accumulate_gradients(
        job.adapted, objective, rows, budget, 1, lambda: False, at_the_end_of_forward
    )
    after = device.memory.used - before
    return Counted(kept, device.memory.peak - before, after)


def rows_of(spec: JobSpec, lengths: list[int], labelled: float) -> list[TrainingRow]:
    """Return rows of these lengths, of which a share has a loss; halves if there are two stacks."""
    made: list[TrainingRow] = []
    for line, length in enumerate(lengths):
        tokens = (7,) * length
        if spec.task == "classification":
            made.append(LabelledRow(line, tokens, (line % 2,)))
        elif spec.task == "seq2seq":
            made.append(SourceTargetRow(line, tokens[: length // 2], tokens[length // 2 :]))
        else:
            first = max(1, round(length * (1 - labelled)))
            made.append(Row(line, tokens, (False,) * first + (True,) * (length - first)))
    return made


def _quantize(model: PreTrainedModel) -> None:
    """Replace the linear layers by four-bit ones, as loading does.

    bitsandbytes' weights are made in a way that no FakeTensor allows, so they are plain ones.
    """
    import bitsandbytes
    from core.artifacts.quantize import layers_to_quantize
    from core.models.load import make_rows_independent

    for path, layer in layers_to_quantize(model).items():
        weight_OI = layer.weight.detach()
        weight_OI = weight_OI.t() if isinstance(layer, Conv1D) else weight_OI
        outputs, inputs = weight_OI.shape
        has_bias = layer.bias is not None
        made = bitsandbytes.nn.Linear4bit(
            inputs, outputs, has_bias, model.dtype, device="meta", quant_type="nf4"
        )
        packed, state = bitsandbytes.functional.quantize_4bit(
            weight_OI.contiguous(), compress_statistics=True, quant_type="nf4"
        )
        made._parameters["weight"] = nn.Parameter(packed, requires_grad=False)
        made.weight.quant_state = state
        made.bias = layer.bias
        model.set_submodule(path, made.train(model.training))
    make_rows_independent(model)
