"""A dry run: two steps of a job on its longest batch, measured."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.job import JobSpec
from core.spec.precision import NumberFormat

DRY_STEPS = 2


class CountedRows(Spec):
    """The rows of a job as tokens."""

    rows: int = Field(ge=1)
    mean_tokens: float = Field(gt=0)
    longest_tokens: int = Field(ge=1)
    sequences_per_row: int = Field(ge=1)
    labelled_share: float = Field(ge=0, le=1)


class DryRunRequest(Spec):
    """The input of a dry run: the job, and the blobs of its files."""

    spec: JobSpec
    train_key: str
    validation_key: str | None = None
    estimated: CountedRows | None = Field(None, description="the rows, before they are counted")


class DryRunResult(Spec):
    """What was measured."""

    machine: str | None = Field(description="of the worker's calibration; None without one")
    counted: CountedRows
    total_steps: int
    trainable_parameters: int
    total_parameters: int
    precision: NumberFormat
    gradient_checkpointing: bool
    batch_tokens: int = Field(description="of the measured batch, which has the most of all steps")
    micro_batch_tokens: int = Field(description="of its largest forward pass")
    micro_batches: int
    seconds_per_step: float = Field(description="of the second step, which builds no kernels")
    peak_memory_bytes: int = Field(description="of the process, or on a GPU of its memory there")
