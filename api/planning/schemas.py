"""The bodies of estimates."""

from typing import Any, Literal

from pydantic import BaseModel

from api.jobs.schemas import CreateJob
from api.planning.strategy_schemas import MemoryObject, ParametersObject
from core.planning.fit import Verdict
from core.spec.dry_run import DryRunResult
from core.spec.numbers import Flag
from core.spec.precision import NumberFormat
from core.spec.strategy import StrategySpec


class CreateEstimate(CreateJob):
    """The body of a job's creation; with `dry_run`, two steps are run and measured."""

    dry_run: Flag = False


class TokensObject(BaseModel):
    per_epoch: int
    trained: int
    """In all steps."""
    longest_row: int
    is_exact: bool
    """Counted by a dry run; otherwise estimated from characters."""


class WorkerFitObject(BaseModel):
    """One running worker that has measured its device."""

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
    """Null if no running worker has measured its device."""
    workers: list[WorkerFitObject]
    training_seconds: float | None
    price: float | None
    """Null without `TUNESMITH_PRICE_PER_HOUR`."""
    suggestion: SuggestionObject | None
    measured: DryRunResult | None
    error: EstimateError | None
