"""Bounds what a client may cost before its request is complete.

uvicorn with httptools takes heads of any length and waits for them for ever: four connections with
a head of 60 MB each delay every answer by seconds, and silent connections are never closed.
"""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""Of a request's line and headers, which are parsed as they arrive: plus what one read returns."""

MAX_HEADERS = 100

HEAD_SECONDS = 30.0
"""From the beginning of a connection, or of a further request, to the end of its headers."""


class BoundedHttp(HttpToolsProtocol):
    """A connection whose requests must have short heads that arrive in time."""

    _head_bytes = 0
    _heads = 0
    """That are complete."""
    _is_reading_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_reading_head and self._deadline is None:  # a further request
            self._begin_head()
        was_reading_head, heads = self._is_reading_head, self._heads
        super().data_received(data)
        if was_reading_head and self._heads == heads and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES or len(self.headers or ()) > MAX_HEADERS:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._end_head()
        self._heads += 1
        self._is_reading_head = False
        if len(self.headers) > MAX_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading_head = True
        if not self.transport.is_closing():
            super().on_message_complete()

    def _begin_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(
            HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT
        )

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._end_head()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode())
        self.transport.close()
