"""Batches: the report on an input file, the input of their task, and the limits."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.dataset import LineError
from core.spec.serving import ADAPTER_FORM, ServingSpec

MAX_REQUESTS = 50_000
"""Of one input file, as at OpenAI."""
MAX_MODELS = 100
"""Different models in one input file; all of them are resolved when the batch is created."""


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    """Waits for a worker. The input file has been checked at its upload."""
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    """No more requests are answered; the output files are written."""
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    """The owner has cancelled it; its worker will stop and write the output files."""
    CANCELLED = "cancelled"


FINAL = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


class BatchReport(Spec):
    """The result of checking every line of an input file. A batch needs a file without errors."""

    rows: int
    faults: tuple[LineError, ...] = Field(description="the first ones, up to a limit")
    fault_count: int = Field(description="all errors, listed or not")
    urls: dict[str, int] = Field(
        default_factory=dict, description="the first line of each endpoint that the lines name"
    )
    models: tuple[str, ...] = Field((), description="that the bodies name, up to a limit")

    @property
    def usable(self) -> bool:
        return self.rows > 0 and self.fault_count == 0


class BatchModel(Spec):
    """What a model's name meant when the batch was created."""

    id: str
    base: BaseModelSpec
    adapter: BundleRef | None
    serving: ServingSpec = ADAPTER_FORM


class RefusedModel(Spec):
    """Why a model cannot answer: the HTTP status and body of each request that names it."""

    status: int
    body: dict[str, Any]


class BatchRequest(Spec):
    """The input of the task of a batch."""

    batch_id: str
    endpoint: str
    blob_key: str
    models: dict[str, BatchModel | RefusedModel]


class BatchResult(Spec):
    """The output of the task; everything for the owner is in the row of the batch."""

    status: BatchStatus
