"""The bodies of the planner's routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.jobs.schemas import CreateJob
from core.planning.fit import Verdict
from core.spec.dry_run import DryRunResult
from core.spec.numbers import Flag
from core.spec.objective import Task
from core.spec.precision import NumberFormat
from core.spec.strategy import StrategySpec


class CreateEstimate(CreateJob):
    """The body of a job's creation; with `dry_run`, two steps are run and measured."""

    dry_run: Flag = False


class ParametersObject(BaseModel):
    total: int
    """Of the base and the strategy together."""
    trainable: int
    trainable_share: float


class MemoryObject(BaseModel):
    """Bytes at the peak; `total` is the sum of the parts, corrected if there was a dry run."""

    total: int
    parts: dict[str, int]


class QualityObject(BaseModel):
    """Held-out losses in nats per target, before and after training with `auto` rates."""

    dataset: str
    rows: int
    steps: int
    untrained_loss: float
    loss: float
    source: str


class StrategyObject(BaseModel):
    """One strategy with its default options on one base."""

    object: Literal["fine_tuning.strategy"] = "fine_tuning.strategy"
    type: str
    strategy: StrategySpec
    supported: bool
    unsupported_reason: str | None
    parameters: ParametersObject | None
    peak_memory: MemoryObject | None
    seconds_per_1000_tokens: float | None
    """Null until a worker has measured its device."""
    fits: Verdict | None
    quality: QualityObject | None
    quality_missing: str | None
    """Why there is no `quality`."""
    when_to_use: str


class AssumedRows(BaseModel):
    """The rows for which memory and time are computed."""

    tokens_per_row: int
    rows_per_step: int
    micro_batch_tokens: int


class StrategyList(BaseModel):
    object: Literal["list"] = "list"
    model: str
    task: Task
    base_parameters: int
    assumes: AssumedRows
    worker: str | None
    """The worker whose device memory and time are given for; null: a usual CPU."""
    device: str | None
    data: list[StrategyObject]


class TokensObject(BaseModel):
    per_epoch: int
    trained: int
    """In all steps."""
    longest_row: int
    is_exact: bool
    """Counted by a dry run; otherwise estimated from characters."""


class WorkerFitObject(BaseModel):
    """One living worker that has measured its device."""

    worker: str
    device: str
    fits: Verdict
    headroom_bytes: int
    """Memory that is free while the worker is idle, minus the peak."""
    peak_memory_bytes: int
    precision: NumberFormat
    gradient_checkpointing: bool
    training_seconds: float
    """Of all steps, without loading, evaluations and checkpoints."""
    is_calibrated_by_dry_run: bool


class SuggestionObject(BaseModel):
    """Changes of the body after which the job fits."""

    changes: dict[str, Any]
    message: str


class EstimateError(BaseModel):
    code: str
    message: str
    param: str | None


class EstimateObject(BaseModel):
    """What a job would need. The first part is that of the best worker in `workers`."""

    id: str | None
    """Only of a dry run, for polling."""
    object: Literal["fine_tuning.estimate"] = "fine_tuning.estimate"
    created_at: int
    status: Literal["queued", "succeeded", "failed"]
    model: str
    strategy: StrategySpec
    strategy_reason: str | None
    parameters: ParametersObject
    precision: NumberFormat
    gradient_checkpointing: bool
    memory: MemoryObject
    tokens: TokensObject
    steps: int
    flops_per_step: float
    fits: Verdict | None
    """Null if no living worker has measured its device."""
    workers: list[WorkerFitObject]
    training_seconds: float | None
    price: float | None
    """Null without `TUNESMITH_PRICE_PER_HOUR`."""
    suggestion: SuggestionObject | None
    measured: DryRunResult | None
    error: EstimateError | None


ModelQuery = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
