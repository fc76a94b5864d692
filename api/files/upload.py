"""Writes a multipart upload to storage while it is received.

Only one chunk is in memory at a time, for any size of file. The form fields may be in any order.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import anyio
import anyio.from_thread
from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from api.files.expiry import ANCHOR, SECONDS, lifetime
from api.files.form import Part, read_form
from core.datasets.columns import require_known_keys
from core.errors import InvalidRequest, TooLarge, Unavailable
from core.spec.nearest import did_you_mean
from core.storage.blobs import Blob, BlobStore

MAX_UPLOADS = 8  # concurrent; each holds a thread, and a child process during its check
MAX_WAITING = 1_000  # for a place, and for at most WAIT_SECONDS; the body stays with the client
WAIT_SECONDS = 300.0
IDLE_SECONDS = 60.0  # the longest wait for the next bytes
RATE_SECONDS, LEAST_BYTES_PER_SECOND = 30.0, 1024  # slower clients keep a place from others
MAX_FIELD_BYTES = 256
MAX_COLUMNS_BYTES = 8192
MAX_FILENAME_LENGTH = 255

UploadPurpose = Literal["fine-tune", "batch", "evals", "adapter"]
FORM_FIELDS = ("file", "purpose", "columns", ANCHOR, SECONDS)


@dataclass(frozen=True)
class Upload:
    """A stored file and the other fields of its form."""

    filename: str
    blob: Blob
    purpose: UploadPurpose
    columns: dict[str, str]
    """A mapping of keys of a known row layout to columns of the file."""
    lifetime_seconds: int | None
    """From the upload to the expiry; None for a file that does not expire."""

    @property
    def content(self) -> tuple[str, ...]:
        """What makes two uploads the same."""
        form = [self.filename, self.purpose, self.columns, self.lifetime_seconds]
        return self.blob.sha256, json.dumps(form, sort_keys=True)


@asynccontextmanager
async def upload_place(uploads: anyio.CapacityLimiter) -> AsyncIterator[None]:
    """Hold one of the upload places, first come, first served.

    Unavailable if too many wait already, or for too long.
    """
    too_many = Unavailable(
        f"{int(uploads.total_tokens)} files are being uploaded already, and others wait; try "
        "again later.",
        code="too_many_uploads",
    )
    if uploads.available_tokens <= 0 and uploads.statistics().tasks_waiting >= MAX_WAITING:
        raise too_many
    try:
        with anyio.fail_after(WAIT_SECONDS):
            await uploads.acquire()
    except TimeoutError:
        raise too_many from None
    try:
        yield
    finally:
        uploads.release()


def body_chunks(request: Request) -> Iterator[bytes]:
    """Yield the body of a request in a thread; each chunk is awaited on the event loop.

    Raises InvalidRequest if the client sends nothing for `IDLE_SECONDS`, or too little in
    `RATE_SECONDS`; the time that others take does not count.
    """
    stream = request.stream()
    waited, received = 0.0, 0

    async def next_chunk() -> bytes | None:
        try:
            with anyio.fail_after(IDLE_SECONDS):
                return await anext(stream, None)
        except TimeoutError:
            raise InvalidRequest(
                f"The client sent no data for {IDLE_SECONDS:g} seconds; upload the file again.",
                code="upload_stalled",
            ) from None

    while True:
        began = time.monotonic()
        chunk = anyio.from_thread.run(next_chunk)
        if chunk is None:
            return
        waited, received = waited + time.monotonic() - began, received + len(chunk)
        if waited > RATE_SECONDS:
            if received < waited * LEAST_BYTES_PER_SECOND:
                raise InvalidRequest(
                    f"The client sent {received} bytes in {waited:.0f} seconds; an upload must "
                    f"have at least {LEAST_BYTES_PER_SECOND} bytes per second.",
                    code="upload_stalled",
                )
            waited, received = 0.0, 0
        yield chunk


def store_upload(
    store: BlobStore, key: str, content_type: str, chunks: Iterator[bytes], *, max_bytes: int
) -> Upload:
    """Store the form's `file` under `key`, where it stays after an error.

    Raises InvalidRequest for a form that is malformed, truncated, or not a dataset upload, and
    TooLarge for a file of more than `max_bytes`.
    """
    stored: tuple[str, Blob] | None = None
    purpose: UploadPurpose | None = None
    columns: dict[str, str] | None = None
    expiry: dict[str, str] = {}
    for part in read_form(content_type, chunks):
        match part.name:
            case "file" if stored is None:
                blob = store.write(key, _at_most(part.chunks, max_bytes))
                stored = part.filename[:MAX_FILENAME_LENGTH], blob
            case "purpose" if purpose is None:
                purpose = _known_purpose(_text(part))
            case "columns" if columns is None:
                columns = _columns(_text(part, MAX_COLUMNS_BYTES))
            case "expires_after[anchor]" | "expires_after[seconds]" if part.name not in expiry:
                expiry[part.name] = _text(part)
            case _:
                raise _unexpected(part.name)
    for name, value in (("file", stored), ("purpose", purpose)):
        if value is None:
            raise InvalidRequest(
                f"Missing required parameter: {name!r}.",
                param=name,
                code="missing_required_parameter",
            )
    assert stored is not None and purpose is not None
    _refuse_columns(columns, purpose)
    return Upload(*stored, purpose, columns or {}, lifetime(expiry))


def _refuse_columns(columns: dict[str, str] | None, purpose: UploadPurpose) -> None:
    if columns and purpose != "fine-tune":
        raise InvalidRequest(
            "columns are for datasets; remove them.", param="columns", code="invalid_value"
        )


def _unexpected(name: str) -> InvalidRequest:
    """Return the error for a field that is unknown, or was there before."""
    if name in FORM_FIELDS:
        return InvalidRequest(f"The form has the field {name!r} twice.", param=name)
    return InvalidRequest(
        f"Unknown parameter: {name!r}.{did_you_mean(name, FORM_FIELDS)}",
        param=name,
        code="unknown_parameter",
    )


def _known_purpose(purpose: str) -> UploadPurpose:
    match purpose:
        case "fine-tune" | "batch" | "evals" | "adapter":
            return purpose
        case _:
            raise InvalidRequest(
                f"Files of purpose {purpose!r} cannot be used here; upload datasets as "
                f"'fine-tune', requests as 'batch', items of evals as 'evals', and adapters as "
                f"'adapter'."
                f"{did_you_mean(purpose, get_args(UploadPurpose))}",
                param="purpose",
                code="invalid_value",
            )


def _columns(text: str) -> dict[str, str]:
    try:
        columns = TypeAdapter(dict[str, str]).validate_json(text or "{}")
    except ValidationError:
        raise InvalidRequest(
            "columns must be a JSON object that maps keys of a known row layout to columns of the "
            'file, such as {"prompt": "question", "completion": "answer"}.',
            param="columns",
            code="invalid_value",
        ) from None
    require_known_keys(columns)
    return columns


def _at_most(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    length = 0
    for chunk in chunks:
        length += len(chunk)
        if length > max_bytes:
            raise TooLarge(f"The file is larger than {max_bytes} bytes; split it.", param="file")
        yield chunk


def _text(part: Part, max_bytes: int = MAX_FIELD_BYTES) -> str:
    value = b""
    for chunk in part.chunks:
        value += chunk
        if len(value) > max_bytes:
            raise InvalidRequest(
                f"The field {part.name!r} is longer than {max_bytes} bytes.", param=part.name
            )
    return value.decode(errors="replace")
