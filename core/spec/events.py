"""The events of a training run, which travel on the pipe between child and worker.

The recipe yields them, the child writes them to its pipe as JSON lines, and the worker stores them
in the database. They do not depend on where they are stored.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.spec.base import Spec
from core.spec.held_out import HeldOutFacts, Question
from core.spec.mask import MaskRow
from core.spec.parity import ParityReference
from core.spec.precision import NumberFormat, PrecisionChoice

Phase = Literal["preparing data", "loading model", "training", "bundling", "checking parity"]


class PhaseStarted(Spec):
    type: Literal["phase_started"] = "phase_started"
    phase: Phase


class LengthBucket(Spec):
    """The number of rows with at most `tokens` tokens, but more than the previous bucket's."""

    tokens: int
    rows: int


class DatasetValidated(Spec):
    """All rows are rendered, masked and within the length limit: `validating_files` is over."""

    type: Literal["dataset_validated"] = "dataset_validated"
    rows: int
    validation_rows: int
    tokens: int = Field(description="real tokens of one epoch")
    targets: int = Field(
        description="targets of the loss in one epoch: labelled tokens, or rows or pairs, "
        "depending on the objective"
    )
    total_steps: int = Field(description="optimizer steps of the whole run")
    learning_rate: float | None = Field(
        None, description="the peak rate; None in events of versions without auto"
    )
    learning_rate_multiplier: float | None = Field(
        None, description="multiple of the base's default rate; None: not requested"
    )
    held_out_rows: int = Field(0, description="training rows used for validation")
    shared_rows: int = Field(0, description="rows of the validation file that are trained on too")
    duplicate_rows: int = Field(0, description="training rows that equal an earlier row")
    duplicate_lines: tuple[int, ...] = Field((), description="the first lines of them")
    truncated_rows: int = Field(0, description="training rows truncated to the limit")
    truncated_lines: tuple[int, ...] = Field((), description="the first lines of them")
    lengths: tuple[LengthBucket, ...] = Field((), description="of the training rows")
    split_conversations: int = Field(
        0, description="conversations split into a row per answer, as their template requires"
    )
    split_tokens: int = Field(0, description="additional tokens per epoch due to the split")


class MaskAudited(Spec):
    """The masks of the first rows."""

    type: Literal["mask_audited"] = "mask_audited"
    rows: tuple[MaskRow, ...]


class ModelReady(Spec):
    type: Literal["model_ready"] = "model_ready"
    trainable_parameters: int
    total_parameters: int
    precision: NumberFormat
    device: str
    gradient_checkpointing: bool = False
    chosen: PrecisionChoice | None = Field(None, description="the reason for this precision")


class RunResumed(Spec):
    """Resumed after `step` from a state of an earlier attempt."""

    type: Literal["run_resumed"] = "run_resumed"
    step: int


class RunRestarted(Spec):
    """The state that an earlier attempt saved after `step` does not fit; restarted at step 1."""

    type: Literal["run_restarted"] = "run_restarted"
    step: int


class StepDone(Spec):
    """One optimizer step. `loss` is the mean over its targets, in nats.

    `accuracy` is the share of correct targets: predicted tokens, labelled rows, ordered pairs.
    """

    type: Literal["step_done"] = "step_done"
    step: int = Field(description="1 for the first")
    total_steps: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float | None = Field(
        description="before clipping; None if fp16 overflowed and the update was skipped"
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
    """The rows with the highest losses of an epoch, measured when they were trained."""

    type: Literal["row_losses"] = "row_losses"
    epoch: int
    median: float
    hardest: tuple[RowLoss, ...] = Field(description="highest loss first, up to a limit")


class MicroBatchHalved(Spec):
    """Memory ran out; the step is repeated with smaller micro-batches and the same result."""

    type: Literal["micro_batch_halved"] = "micro_batch_halved"
    step: int = Field(description="the last completed step")
    micro_batch_tokens: int = Field(description="the new limit")


class StoppedEarly(Spec):
    """The held-out loss no longer decreases; the remaining steps are skipped."""

    type: Literal["stopped_early"] = "stopped_early"
    step: int
    best_step: int = Field(description="the step with the lowest held-out loss")


class CheckpointSaved(Spec):
    """A complete bundle is in `folder`."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int
    folder: Path
    train_loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    best_step: int | None = Field(
        None, description="the checkpoint with the lowest held-out loss so far"
    )
    reference: ParityReference | None = Field(
        None, description="the parity reference for the first request to the checkpoint"
    )


class ResumeStateSaved(Spec):
    """A complete resume state after `step` is in `folder`.

    Sent every few minutes, and as the last event of a run that was asked to stop.
    """

    type: Literal["resume_state_saved"] = "resume_state_saved"
    step: int = Field(description="the last step included; 0 for none")
    folder: Path


class RungReached(Spec):
    """The last event of a run that was to pause here; follows the ResumeStateSaved of this step.

    Loss and accuracy are those of all held-out rows; None without held-out rows.
    """

    type: Literal["rung_reached"] = "rung_reached"
    step: int
    share: float = Field(description="of the steps of the run, as requested")
    loss: float | None
    accuracy: float | None
    folder: Path | None = Field(None, description="the bundle of this step, if it is asked")
    questions: tuple[Question, ...] = Field((), description="what it is asked")


class RunFinished(Spec):
    """The last event of a successful run."""

    type: Literal["run_finished"] = "run_finished"
    folder: Path
    weights_sha256: str = Field(description="of the file of trained weights")
    trained_tokens: int = Field(description="real tokens over all steps")
    step: int | None = Field(
        None, description="the step of the weights: the last, or the one with the best loss"
    )
    reference: ParityReference | None = Field(None, description="the parity reference")
    validation_loss: float | None = Field(None, description="of the weights of `step`")
    validation_accuracy: float | None = None
    held_out: HeldOutFacts | None = Field(
        None, description="what the verdict needs; None in events of versions without verdicts"
    )


class RunFailed(Spec):
    """The last event of a failed run."""

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
    | RungReached
    | RunFinished
    | RunFailed,
    Field(discriminator="type"),
]

run_event_adapter: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
