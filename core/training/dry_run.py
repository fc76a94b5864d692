"""Two steps of a job on its largest batch, with their memory and time; nothing is kept."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import OutOfMemory, all_or_nothing
from core.batching.order import derived_seed
from core.batching.packing import pack
from core.batching.rows import LabelledRow, PairRow, Row, SourceTargetRow, TrainingRow
from core.errors import TrainingFailed
from core.models.memory import peak_bytes
from core.models.precision import dtype_of, pick_device
from core.models.precision_choice import PrecisionChooser
from core.objectives.objective import Objective
from core.spec.dry_run import DRY_STEPS, CountedRows, DryRunResult
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.activations import use_gradient_checkpointing
from core.training.data import Dataset, load_dataset
from core.training.inputs import inputs_of
from core.training.learning_rate import settled
from core.training.model import base_of, load_model
from core.training.neftune import add_noise
from core.training.optimizer import TrainingOptimizer, build_optimizer
from core.training.plan import StepPlan
from core.training.step import accumulate_gradients
from core.training.threads import limit_threads

SMALLEST_RATE = 1e-9
"""The learning rate of the steps, whose weights are not kept."""

SEARCHED_STEPS = 2000
"""The first steps of a run, among which the one with the most tokens is chosen."""


def measure(spec: JobSpec, workspace: Workspace, precision_folder: Path | None) -> DryRunResult:
    """Run two steps as a run would, on the rows of its step with the most tokens.

    Raises the errors of `core.training.recipe.train`, and TrainingFailed `does_not_fit` if memory
    runs out. The process can be used for nothing else afterwards.
    """
    device = pick_device()
    inputs = inputs_of(spec, base_of(spec, workspace))
    dataset = load_dataset(inputs, workspace)
    plan = StepPlan(spec, len(dataset.rows))
    spec = settled(spec, inputs.config, plan.total_steps)
    hyper = spec.training
    chosen = PrecisionChooser(device, precision_folder).choose(spec.base, hyper.precision)
    dtype = dtype_of(chosen.choice)
    if device.type == "cpu":
        tokens = sum(row.length for row in dataset.rows)
        limit_threads(inputs.config, plan.tokens_per_pass(tokens))
    with all_or_nothing("The base model"):
        adapted = load_model(spec, workspace, inputs.tokenizer, dtype, device)
        rows = [*dataset.rows, *dataset.validation_rows]
        inputs.objective.prepare(adapted, rows, hyper.micro_batch_tokens)
    checkpointed = use_gradient_checkpointing(adapted, dataset.rows, hyper)
    if hyper.neftune_alpha:
        add_noise(adapted, hyper.neftune_alpha)
    batch = largest_batch(dataset, plan)
    seconds = _seconds_of_last_step(
        adapted, build_optimizer(adapted, spec, dtype), inputs.objective, batch, spec
    )
    passes = pack(batch, hyper.micro_batch_tokens)
    return DryRunResult(
        machine=None,
        counted=count(dataset.rows),
        total_steps=plan.total_steps,
        trainable_parameters=adapted.trainable_parameters,
        total_parameters=adapted.total_parameters,
        precision=chosen.choice,
        gradient_checkpointing=checkpointed,
        batch_tokens=sum(row.length for row in batch),
        micro_batch_tokens=max(sum(row.length for row in one) for one in passes),
        micro_batches=len(passes),
        seconds_per_step=seconds,
        peak_memory_bytes=peak_bytes(device),
    )


def _seconds_of_last_step(
    adapted: AdaptedModel,
    optimizer: TrainingOptimizer,
    objective: Objective[Any],
    batch: Sequence[TrainingRow],
    spec: JobSpec,
) -> float:
    """Take the steps; the first one builds kernels and the optimizer's state."""
    hyper = spec.training
    started = 0.0
    for number in range(DRY_STEPS):
        started = time.perf_counter()
        try:
            accumulate_gradients(
                adapted,
                objective,
                batch,
                hyper.micro_batch_tokens,
                derived_seed(spec.seed, number),
                lambda: False,
                optimizer.scale,
            )
        except OutOfMemory as shortage:
            raise TrainingFailed(
                "A micro-batch of the dry run does not fit into memory. Set "
                f"training.micro_batch_tokens to {shortage.half}, or "
                "training.gradient_checkpointing to true.",
                param="training.micro_batch_tokens",
                code="does_not_fit",
            ) from None
        optimizer.clip(hyper.max_grad_norm)
        optimizer.step(SMALLEST_RATE)
        if adapted.model.device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - started


def largest_batch(dataset: Dataset, plan: StepPlan) -> list[TrainingRow]:
    """Return the rows of the step with the most tokens."""
    searched = min(plan.total_steps, SEARCHED_STEPS)
    steps = (plan.step(number).rows for number in range(1, searched + 1))
    rows = dataset.rows
    largest = max(steps, key=lambda indices: sum(rows[index].length for index in indices))
    return [rows[index] for index in largest]


def count(rows: Sequence[TrainingRow]) -> CountedRows:
    """Return the figures of rows as tokens."""
    tokens = sum(row.length for row in rows)
    return CountedRows(
        rows=len(rows),
        mean_tokens=tokens / len(rows),
        longest_tokens=max(row.length for row in rows),
        sequences_per_row=2 if isinstance(rows[0], PairRow) else 1,
        labelled_share=sum(map(_labelled, rows)) / tokens,
    )


def _labelled(row: TrainingRow) -> int:
    match row:
        case Row():
            return sum(row.trained)
        case PairRow():
            return sum(row.chosen.trained) + sum(row.rejected.trained)
        case SourceTargetRow():
            return len(row.target)
        case LabelledRow():
            return 0
        case _:
            raise TypeError(f"cannot count rows of type {type(row).__name__}")
