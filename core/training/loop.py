"""The loop body of a run: a step, and after some steps evaluation and checkpoint."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from core.adapters.memory import OutOfMemory, all_or_nothing
from core.artifacts.bundle import BundleContents
from core.artifacts.card import CardFacts
from core.artifacts.metrics import StepMetrics
from core.batching.order import derived_seed
from core.errors import TrainingFailed
from core.evaluation.best import best_step, is_out_of_patience
from core.evaluation.validation import Validation, validate
from core.objectives.objective import Objective
from core.spec.events import (
    CheckpointSaved,
    Evaluated,
    MicroBatchHalved,
    RunEvent,
    StepDone,
    StoppedEarly,
)
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.checkpoint import save_checkpoint
from core.training.data import Dataset
from core.training.parity import parity_reference
from core.training.parity_passes import CHECKPOINT, FINAL
from core.training.plan import StepPlan
from core.training.replayed import Replay
from core.training.schedule import learning_rate, peak_rate
from core.training.state import RunState
from core.training.step import accumulate_gradients
from core.training.trained import Trained

LONGEST_OVERFLOW = 20
"""Consecutive skipped updates after which the fp16 loss scale is not the cause."""


class Stopped(Exception):
    """The run was asked to stop; the state is that after the last complete step."""


@dataclass(frozen=True)
class Training:
    """The constants of a run."""

    spec: JobSpec
    workspace: Workspace
    dataset: Dataset
    plan: StepPlan
    objective: Objective[Any]
    tokenizer: PreTrainedTokenizerBase
    facts: CardFacts
    stop: Callable[[], bool]
    dtype: torch.dtype
    """Of the base's weights."""
    replays: Sequence[Replay]
    """Rows that the engine replays for parity."""
    rung_step: int | None = None
    """The step after which the run is evaluated and paused; None: it is trained to its end."""

    def is_finished(self, state: RunState) -> bool:
        """Return whether the run is complete, by plan or by early stopping."""
        patience = self.spec.evaluation.early_stopping_patience
        return state.checkpointed_step == state.step and (
            state.step == self.plan.total_steps or is_out_of_patience(state.curve, patience)
        )

    def is_at_rung(self, state: RunState) -> bool:
        """Return whether the run has nothing to do before its pause."""
        return state.step == self.rung_step and state.checkpointed_step == state.step

    def bundle(self, state: RunState, step: int) -> BundleContents:
        """Return the contents of a bundle with the weights after `step`."""
        return BundleContents(
            adapted=state.adapted,
            step=step,
            tokenizer=self.tokenizer,
            card=replace(self.facts, base=state.baseline.figures if state.baseline else None),
            curve=tuple(state.curve),
            row_losses_csv=state.row_losses.as_csv(),
        )

    def trained(self, state: RunState, bundle: Path) -> Trained:
        """Return the current model, which has just been written to `bundle`."""
        return Trained(
            self.spec, state.adapted, self.dtype, self.tokenizer, bundle, state.budget_tokens
        )


def take_step(training: Training, state: RunState) -> Iterator[RunEvent]:
    """Run the next step. Raises Stopped, OutOfMemory, TrainingFailed."""
    started = time.perf_counter()
    hyper = training.spec.training
    planned = training.plan.step(state.step + 1)
    sums = accumulate_gradients(
        state.adapted,
        training.objective,
        [training.dataset.rows[index] for index in planned.rows],
        state.budget_tokens,
        derived_seed(training.spec.seed, planned.number),
        training.stop,
        state.optimizer.scale,
    )
    if sums is None:
        raise Stopped
    norm = state.optimizer.clip(hyper.max_grad_norm)
    scaled = training.facts.model.precision == "fp16"
    if not (math.isfinite(sums.loss) and (math.isfinite(norm) or scaled)):
        raise _not_finite(training, planned.number, f"loss {sums.loss}, gradient norm {norm}")
    rate = learning_rate(hyper, planned.number, training.plan.total_steps)
    with all_or_nothing("The optimizer's state"):
        taken = state.optimizer.step(rate)
    state.overflows = 0 if taken else state.overflows + 1
    if state.overflows == LONGEST_OVERFLOW:
        raise _not_finite(training, planned.number, f"{LONGEST_OVERFLOW} overflows in a row")
    state.step = planned.number
    state.trained_tokens += sums.tokens
    state.row_losses.note(planned.epoch, planned.rows, sums.row_losses)
    loss, accuracy = sums.loss / sums.targets, sums.correct / sums.targets
    state.curve.append(StepMetrics(planned.number, loss, accuracy))
    yield StepDone(
        step=planned.number,
        total_steps=training.plan.total_steps,
        epoch=planned.epoch,
        loss=loss,
        accuracy=accuracy,
        learning_rate=rate,
        gradient_norm=norm if taken else None,
        tokens=sums.tokens,
        targets=sums.targets,
        seconds=time.perf_counter() - started,
    )


def evaluate_and_checkpoint(training: Training, state: RunState) -> Iterator[RunEvent]:
    """Evaluate and save a checkpoint if due. Raises Stopped, OutOfMemory; may be repeated then."""
    planned = training.plan.step(state.step)
    if planned.is_checkpointed:
        if training.dataset.validation_rows:
            yield _evaluate(training, state)
        yield _publish(training, state)
    if planned.ends_epoch:
        yield state.row_losses.summary(planned.epoch)
    state.checkpointed_step = state.step
    if training.is_finished(state) and state.step < training.plan.total_steps:
        best = best_step(state.curve)
        assert best is not None, "early stopping requires an evaluation"
        yield StoppedEarly(step=state.step, best_step=best.step)


def halve_micro_batch(state: RunState, shortage: OutOfMemory) -> RunEvent:
    """Free the memory of the failed attempt and halve the micro-batches from now on."""
    state.optimizer.zero()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    state.budget_tokens = min(state.budget_tokens, shortage.half)
    return MicroBatchHalved(step=state.step, micro_batch_tokens=state.budget_tokens)


def validated(training: Training, state: RunState) -> Validation:
    """Evaluate the held-out rows. Raises Stopped, OutOfMemory, TrainingFailed."""
    rows = training.dataset.validation_rows
    found = validate(state.adapted, training.objective, rows, state.budget_tokens, training.stop)
    if found is None:
        raise Stopped
    if not math.isfinite(found.loss):
        raise _not_finite(training, state.step, f"loss {found.loss} on held-out rows")
    return found


def _evaluate(training: Training, state: RunState) -> RunEvent:
    found = validated(training, state)
    state.curve[-1] = replace(
        state.curve[-1], valid_loss=found.loss, valid_mean_token_accuracy=found.accuracy
    )
    if training.spec.evaluation.keep_best and best_step(state.curve) == state.curve[-1]:
        state.keep_as_best()
    return Evaluated(step=state.step, loss=found.loss, accuracy=found.accuracy)


def _publish(training: Training, state: RunState) -> RunEvent:
    folder = training.workspace.checkpoint_folder(state.step)
    best = best_step(state.curve)
    best_number = best.step if best else None
    save_checkpoint(training.workspace, state.step, training.bundle(state, state.step), best_number)
    is_last = state.step == training.plan.total_steps
    trained, effort = training.trained(state, folder), FINAL if is_last else CHECKPOINT
    reference = parity_reference(trained, training.replays, training.stop, effort)
    if reference is None:
        raise Stopped
    if is_last:
        state.last_reference = reference
    now = state.curve[-1]
    return CheckpointSaved(
        step=state.step,
        folder=folder,
        train_loss=now.train_loss,
        train_accuracy=now.train_accuracy,
        validation_loss=now.valid_loss,
        validation_accuracy=now.valid_mean_token_accuracy,
        best_step=best_number,
        reference=reference,
    )


def _not_finite(training: Training, step: int, what: str) -> TrainingFailed:
    return TrainingFailed(
        f"The loss or its gradient is no longer finite at step {step} ({what}). Lower the "
        f"learning rate ({peak_rate(training.spec.training):g}) or lengthen the warmup.",
        code="loss_nonfinite",
    )
