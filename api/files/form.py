"""Reads the fields of a multipart form while it is received."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import InvalidRequest


@dataclass
class Part:
    """One field of a form. `chunks` must be exhausted before the next part is requested."""

    name: str
    filename: str
    chunks: Iterator[bytes]


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
