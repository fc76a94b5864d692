"""Writes a multipart upload to storage while it is received.

Only one chunk is in memory at a time, for any size of file. The form fields may be in any order.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import anyio
import anyio.from_thread
from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.files.expiry import ANCHOR, SECONDS, lifetime
from core.datasets.columns import require_known_keys
from core.errors import InvalidRequest, TooLarge, Unavailable
from core.spec.nearest import did_you_mean
from core.storage.blobs import Blob, BlobStore

MAX_UPLOADS = 8  # concurrent; each holds a thread, and a child process during its check
IDLE_SECONDS = 60.0  # the longest wait for the next bytes
MAX_FIELD_BYTES = 256
MAX_COLUMNS_BYTES = 8192
MAX_FILENAME_LENGTH = 255

UploadPurpose = Literal["fine-tune", "batch"]
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


@dataclass
class Part:
    """One field of a form. `chunks` must be exhausted before the next part is requested."""

    name: str
    filename: str
    chunks: Iterator[bytes]


@contextmanager
def upload_place(uploads: anyio.CapacityLimiter) -> Iterator[None]:
    """Hold one of the upload slots; Unavailable if all are in use."""
    try:
        uploads.acquire_nowait()
    except anyio.WouldBlock:
        raise Unavailable(
            f"{uploads.total_tokens} files are being uploaded already; try again later.",
            code="too_many_uploads",
        ) from None
    try:
        yield
    finally:
        uploads.release()


def body_chunks(request: Request) -> Iterator[bytes]:
    """Yield the body of a request in a thread; each chunk is awaited on the event loop.

    Raises InvalidRequest if the client sends nothing for `IDLE_SECONDS`.
    """
    stream = request.stream()

    async def next_chunk() -> bytes | None:
        try:
            with anyio.fail_after(IDLE_SECONDS):
                return await anext(stream, None)
        except TimeoutError:
            raise InvalidRequest(
                f"The client sent no data for {IDLE_SECONDS:g} seconds; upload the file again.",
                code="upload_stalled",
            ) from None

    while (chunk := anyio.from_thread.run(next_chunk)) is not None:
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
        case "fine-tune" | "batch":
            return purpose
        case _:
            raise InvalidRequest(
                f"Files of purpose {purpose!r} cannot be used here; upload datasets as "
                f"'fine-tune', and requests as 'batch'."
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


def read_form(content_type: str, chunks: Iterator[bytes]) -> Iterator[Part]:
    """Yield the fields of a multipart form as they arrive; InvalidRequest if it is invalid."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            "Send the file as multipart/form-data with the fields 'file' and 'purpose'."
        )
    try:
        form = _Form(boundary, chunks)
        while (part := form.next_part()) is not None:
            yield part
            for _ in part.chunks:  # skip what the caller did not read
                pass
    except FormParserError as error:
        raise InvalidRequest(f"The multipart form is malformed: {error}.") from error


@dataclass
class _Headers:
    """The headers of the current part."""

    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)
    name: bytes = b""
    value: bytes = b""

    def finish_one(self) -> None:
        self.pairs.append((self.name.lower(), self.value))
        self.name = self.value = b""

    def disposition(self) -> dict[bytes, bytes]:
        value = dict(self.pairs).get(b"content-disposition", b"")
        return parse_options_header(value.decode("latin-1"))[1]


class _Form:
    """Converts the parser's callbacks into an iterator of parts.

    `_found` queues the results of the last chunk of the body: a Part, bytes of the part, or None
    for the end of the part.
    """

    def __init__(self, boundary: bytes, body: Iterator[bytes]) -> None:
        self._body = body
        self._found: deque[Part | bytes | None] = deque()
        self._headers = _Headers()
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._announce,
                "on_part_data": lambda data, start, end: self._found.append(data[start:end]),
                "on_part_end": lambda: self._found.append(None),
                "on_end": self._complete,
            },
        )

    def next_part(self) -> Part | None:
        """Return the next field, or None after the last one."""
        while not self._found and not self._is_complete:
            self._read_chunk()
        if not self._found:
            return None
        part = self._found.popleft()
        assert isinstance(part, Part)
        return part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while not self._found:
                self._read_chunk()
            item = self._found.popleft()
            if item is None:
                return
            assert isinstance(item, bytes)
            yield item

    def _read_chunk(self) -> None:
        chunk = next(self._body, None)
        if chunk is None:
            raise InvalidRequest("The request body ended before the form; upload the file again.")
        self._parser.write(chunk)

    def _begin(self) -> None:
        self._headers = _Headers()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._headers.name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers.value += data[start:end]

    def _end_header(self) -> None:
        self._headers.finish_one()

    def _announce(self) -> None:
        disposition = self._headers.disposition()
        name = disposition.get(b"name", b"").decode(errors="replace")
        filename = disposition.get(b"filename", b"").decode(errors="replace").replace("\x00", "")
        self._found.append(Part(name, filename or "upload", self._chunks()))

    def _complete(self) -> None:
        self._is_complete = True
