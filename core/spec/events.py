"""What a training run says while it runs: the vocabulary of the pipe between child and worker.

The recipe yields these; the child writes them to its pipe as JSON lines; the worker turns
them into rows. They are facts, in order, and carry no opinion on where they are stored.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.spec.base import Spec

Phase = Literal["preparing data", "loading model", "training", "bundling"]


class PhaseStarted(Spec):
    type: Literal["phase_started"] = "phase_started"
    phase: Phase


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


class ModelReady(Spec):
    type: Literal["model_ready"] = "model_ready"
    trainable_parameters: int
    total_parameters: int
    precision: Literal["bf16", "fp16", "fp32"]
    device: str


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
    gradient_norm: float
    tokens: int = Field(description="real tokens of this step")
    targets: int
    seconds: float


class Evaluated(Spec):
    """Loss and accuracy over all held-out rows."""

    type: Literal["evaluated"] = "evaluated"
    step: int
    loss: float
    accuracy: float


class CheckpointSaved(Spec):
    """A complete bundle stands in `folder`."""

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    step: int
    folder: Path
    train_loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class RunFinished(Spec):
    """The last event of a run that worked."""

    type: Literal["run_finished"] = "run_finished"
    folder: Path
    weights_sha256: str = Field(description="of the file of trained weights")
    trained_tokens: int = Field(description="real tokens over all epochs")


class RunFailed(Spec):
    """The last event of a run that did not work."""

    type: Literal["run_failed"] = "run_failed"
    code: str
    message: str
    param: str | None = None


RunEvent = Annotated[
    PhaseStarted
    | DatasetValidated
    | ModelReady
    | StepDone
    | Evaluated
    | CheckpointSaved
    | RunFinished
    | RunFailed,
    Field(discriminator="type"),
]

run_event_adapter: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)
