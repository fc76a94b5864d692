"""What a training run says while it runs: the vocabulary of the pipe between child and worker.

The recipe yields these; the child writes them to its pipe as JSON lines; the worker turns
them into rows. They are facts, in order, and carry no opinion on where they are stored.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.spec.base import Spec
from core.spec.mask import MaskRow
from core.spec.parity import ParityReference
from core.spec.precision import NumberFormat, PrecisionChoice

Phase = Literal["preparing data", "loading model", "training", "bundling", "checking parity"]


class PhaseStarted(Spec):
    type: Literal["phase_started"] = "phase_started"
    phase: Phase


class LengthBucket(Spec):
    """How many rows have at most `tokens` tokens, and more than the bucket before allows."""

    tokens: int
    rows: int


class DatasetValidated(Spec):
    """Rendered, masked and within the length limit; the job may leave `validating_files`."""

    type: Literal["dataset_validated"] = "dataset_validated"
    rows: int
    validation_rows: int
    tokens: int = Field(description="real tokens of one epoch")
    targets: int = Field(
        description="what the loss of one epoch is taken over: labelled tokens, or the rows or "
        "pairs themselves where the objective judges those"
    )
    total_steps: int = Field(description="optimiser steps of the whole run")
    learning_rate: float | None = Field(
        None, description="the highest of the run; None in events from before there was an auto"
    )
    learning_rate_multiplier: float | None = Field(
        None, description="how many times the base's own rate that is; None: it was not asked"
    )
    held_out_rows: int = Field(0, description="taken from the training file for validation")
    shared_rows: int = Field(0, description="rows of the validation file that are trained on too")
    duplicate_rows: int = Field(0, description="training rows that equal an earlier one")
    duplicate_lines: tuple[int, ...] = Field((), description="the first of them")
    truncated_rows: int = Field(0, description="training rows cut to the limit")
    truncated_lines: tuple[int, ...] = Field((), description="the first of them")
    lengths: tuple[LengthBucket, ...] = Field((), description="of the rows trained on")
    split_conversations: int = Field(
        0, description="conversations trained as a row for each answer, as their template demands"
    )
    split_tokens: int = Field(0, description="what that adds to the tokens of one epoch")


class MaskAudited(Spec):
    """What the first rows train on."""

    type: Literal["mask_audited"] = "mask_audited"
    rows: tuple[MaskRow, ...]


class ModelReady(Spec):
    type: Literal["model_ready"] = "model_ready"
    trainable_parameters: int
    total_parameters: int
    precision: NumberFormat
    device: str
    gradient_checkpointing: bool = False
    chosen: PrecisionChoice | None = Field(None, description="why in this precision")


class RunResumed(Spec):
    """Resumed from `step`, with a state that an earlier attempt saved."""

    type: Literal["run_resumed"] = "run_resumed"
    step: int


class RunRestarted(Spec):
    """An earlier attempt saved a state after `step` that does not fit; the run begins at step 1."""

    type: Literal["run_restarted"] = "run_restarted"
    step: int


class StepDone(Spec):
    """One optimiser step. `loss` is the mean over its targets, in nats.

    `accuracy` is the share of targets that came out right: tokens predicted, rows labelled,
    pairs ordered.
    """

    type: Literal["step_done"] = "step_done"
    step: int = Field(description="1 for the first")
    total_steps: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float | None = Field(
        description="before clipping; None where fp16 overflowed and the update was left out"
    )
    tokens: int = Field(description="real tokens of this step")
    targets: int
    seconds: float


class Evaluated(Spec):
    """Loss and accuracy over all held-out rows."""

    type: Literal["evaluated"] = "evaluated"
    step: int
    loss: float
    accuracy: float


class RowLoss(Spec):
    line: int = Field(description="1 for the first line of the training file")
    loss: float = Field(description="mean over the targets of the line, in nats")


class RowLosses(Spec):
    """Which rows cost most in an epoch, as they were when their step was trained."""

    type: Literal["row_losses"] = "row_losses"
    epoch: int
    median: float
    hardest: tuple[RowLoss, ...] = Field(description="the hardest first, up to a bound")


class MicroBatchHalved(Spec):
    """Memory ran out; the step is repeated in smaller parts, with the same result."""

    type: Literal["micro_batch_halved"] = "micro_batch_halved"
    step: int = Field(description="the last one done by then")
    micro_batch_tokens: int = Field(description="the limit from here on")


class StoppedEarly(Spec):
    """The held-out loss no longer falls; the steps that are left are not taken."""

    type: Literal["stopped_early"] = "stopped_early"
    step: int
    best_step: int = Field(description="that with the lowest held-out loss")


class CheckpointSaved(Spec):
    """A complete bundle stands in `folder`."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int
    folder: Path
    train_loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    best_step: int | None = Field(
        None, description="of the checkpoints so far, that with the lowest held-out loss"
    )
    reference: ParityReference | None = Field(
        None, description="what the engine has to say as well when the checkpoint is first asked"
    )


class ResumeStateSaved(Spec):
    """All that another attempt needs to go on after `step` stands, complete, in `folder`.

    Said every few minutes, and once more as the last event of a run that was asked to stop.
    """

    type: Literal["resume_state_saved"] = "resume_state_saved"
    step: int = Field(description="the last step that is in it; 0 for none")
    folder: Path


class RunFinished(Spec):
    """The last event of a run that worked."""

    type: Literal["run_finished"] = "run_finished"
    folder: Path
    weights_sha256: str = Field(description="of the file of trained weights")
    trained_tokens: int = Field(description="real tokens over all steps taken")
    step: int | None = Field(
        None, description="after which the weights were these: the last, or that with the best loss"
    )
    reference: ParityReference | None = Field(
        None, description="what the engine has to say as well"
    )


class RunFailed(Spec):
    """The last event of a run that did not work."""

    type: Literal["run_failed"] = "run_failed"
    code: str
    message: str
    param: str | None = None


RunEvent = Annotated[
    PhaseStarted
    | DatasetValidated
    | MaskAudited
    | ModelReady
    | RunResumed
    | RunRestarted
    | StepDone
    | Evaluated
    | RowLosses
    | MicroBatchHalved
    | StoppedEarly
    | CheckpointSaved
    | ResumeStateSaved
    | RunFinished
    | RunFailed,
    Field(discriminator="type"),
]

run_event_adapter: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
