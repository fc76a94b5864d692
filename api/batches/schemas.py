"""OpenAI's batch object."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.metadata import Metadata
from api.pagination import ListItem
from core.inference.endpoints import ENDPOINTS
from core.records.tables import Batch
from core.spec.batch import FINAL, BatchStatus
from core.spec.ids import FileId
from core.spec.numbers import Integer

HOUR = 3600
DAY = 24 * HOUR
LONGEST_WINDOW_SECONDS = 7 * DAY
_UNITS = {"h": HOUR, "d": DAY}
_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])", re.ASCII)


def window_seconds(window: str) -> int:
    """Return the length of a completion window such as `24h` or `7d`; ValueError for any other."""
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_WINDOW_SECONDS:
        raise ValueError("use a number of hours or days from 1h to 7d, such as 24h")
    return seconds


def _window(window: str) -> str:
    window_seconds(window)
    return window


def _endpoint(url: str) -> str:
    if url not in ENDPOINTS:
        raise ValueError(f"use one of {', '.join(ENDPOINTS)}")
    return url


class ExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[Integer, Field(ge=HOUR, le=30 * DAY)]


class CreateBatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[
        FileId, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")
    ]
    endpoint: Annotated[str, AfterValidator(_endpoint)]
    completion_window: Annotated[str, AfterValidator(_window)]
    """OpenAI has 24h only."""
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchError(BaseModel):
    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """`completed` are the lines of the output file, `failed` those with a response in the other."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    cached_tokens: int = 0
    """Not counted."""


class OutputDetails(BaseModel):
    reasoning_tokens: int


class BatchUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchObject(ListItem):
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    """The model of all requests; null if they name several."""
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


def batch_object(batch: Batch) -> BatchObject:
    is_final = batch.status in FINAL
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=None
        if batch.errors is None
        else BatchErrors(data=[BatchError.model_validate(error) for error in batch.errors]),
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=BatchStatus(batch.status),
        output_file_id=batch.output_file_id if is_final else None,
        error_file_id=batch.error_file_id if is_final else None,
        created_at=int(batch.created_at),
        in_progress_at=_seconds(batch.in_progress_at),
        expires_at=int(batch.expires_at),
        finalizing_at=_seconds(batch.finalizing_at),
        completed_at=_ended(batch, BatchStatus.COMPLETED),
        failed_at=_ended(batch, BatchStatus.FAILED),
        expired_at=_ended(batch, BatchStatus.EXPIRED),
        cancelling_at=_seconds(batch.cancelling_at),
        cancelled_at=_ended(batch, BatchStatus.CANCELLED),
        request_counts=RequestCounts(
            total=batch.total, completed=batch.completed, failed=batch.failed
        ),
        usage=BatchUsage(
            input_tokens=batch.input_tokens,
            input_tokens_details=InputDetails(),
            output_tokens=batch.output_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=batch.reasoning_tokens),
            total_tokens=batch.input_tokens + batch.output_tokens,
        ),
        metadata=batch.user_metadata,
    )


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)


def _ended(batch: Batch, status: BatchStatus) -> int | None:
    """Return the time of the end of a batch that has ended with `status`."""
    return _seconds(batch.finished_at) if batch.status == status else None
