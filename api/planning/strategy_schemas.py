"""The bodies of the comparison of strategies."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from core.planning.fit import Verdict
from core.spec.objective import Task
from core.spec.strategy import StrategySpec

ModelQuery = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


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


class AccuracyObject(BaseModel):
    """Shares of held-out rows answered right, beside TRL and PEFT: means over seeds."""

    task: str
    rows: int
    steps: int
    seeds: int
    accuracy: float
    standard_deviation: float
    """Over the seeds."""
    peer_accuracy: float
    """Of TRL and PEFT on the same rows, steps and learning rate."""
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
    accuracy: AccuracyObject | None
    """Null for a base on which it has not been measured."""
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
