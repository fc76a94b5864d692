"""Clients that send too much before their request, or too little."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from api import connections, middleware
from api.connections import MAX_HEAD_BYTES, MAX_HEADERS, BoundedHttp
from api.errors import install_error_handlers
from api.middleware import BodyLimitMiddleware

GET = b"GET / HTTP/1.1\r\nhost: here\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=10_000_000)

    @app.api_route("/", methods=["GET", "POST"])
    async def length(request: Request) -> JSONResponse:
        return JSONResponse(len(await request.body()))

    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http=BoundedHttp))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


class _Client:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> bytes:
        """What the server sends before a pause, or before it closes."""
        found = b""
        self._socket.settimeout(10)
        try:
            while data := self._socket.recv(1 << 16):
                found += data
                self._socket.settimeout(0.2)
        except (TimeoutError, ConnectionError):
            pass
        return found

    def is_closed(self) -> bool:
        self._socket.settimeout(0.2)
        try:
            return self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


@pytest.fixture
def client(port: int) -> Iterator[_Client]:
    with _Client(port) as client:
        yield client


def seconds(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    monkeypatch.setattr(module, name, 0.3)


def test_ordinary_requests_are_answered_on_one_connection(client: _Client) -> None:
    for _ in range(3):
        client.send(GET + b"cookie: " + b"a" * 30_000 + b"\r\n\r\n")
        assert client.answer().startswith(b"HTTP/1.1 200")
    client.send(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\nab")
    time.sleep(0.1)
    client.send(b"cd" + GET + b"\r\n")
    assert client.answer().count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_bodies_are_no_heads(client: _Client, length: int) -> None:
    for _ in range(3):
        head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % length
        client.send(head + b"a" * length)
        assert client.answer().endswith(b"\r\n\r\n%d" % length)


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"a" * 8 * MAX_HEAD_BYTES,
        b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"".join(b"a%d: b\r\n" % n for n in range(8 * MAX_HEADERS)),
    ],
    ids=["one long", "many", "many without end"],
)
def test_long_heads_are_refused_while_they_arrive(client: _Client, head: bytes) -> None:
    client.send(GET)
    try:
        for first in range(0, len(head), 10_000):
            client.send(head[first : first + 10_000])
            time.sleep(0.001)
    except ConnectionError:
        pass
    assert client.answer().startswith(b"HTTP/1.1 431") or client.is_closed()
    assert client.is_closed()


def test_the_body_behind_a_refused_head_is_not_read(
    client: _Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n"
    client.send(head + b"x: y\r\n" * MAX_HEADERS + b"\r\nabcd")
    assert client.answer().startswith(b"HTTP/1.1 431")
    assert client.is_closed()
    assert "Invalid HTTP request" not in caplog.text


def test_a_long_url_is_refused(client: _Client) -> None:
    try:
        for part in (b"GET /", *[b"a" * 10_000] * 80):
            client.send(part)
            time.sleep(0.001)
    except ConnectionError:
        pass
    assert client.answer()[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
    assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET, b"\r\n" * 10])
def test_heads_that_do_not_end_are_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    seconds(monkeypatch, connections, "HEAD_SECONDS")
    with _Client(port) as client:
        client.send(sent)
        assert client.answer().startswith(b"HTTP/1.1 408")
        assert client.is_closed()


def test_a_further_head_that_does_not_end_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds(monkeypatch, connections, "HEAD_SECONDS")
    with _Client(port) as client:
        client.send(GET + b"\r\n")
        assert client.answer().startswith(b"HTTP/1.1 200")
        time.sleep(0.5)
        assert not client.is_closed()  # idle connections are kept
        client.send(GET)
        assert client.answer().startswith(b"HTTP/1.1 408")


def test_a_body_that_stalls_is_given_up(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds(monkeypatch, middleware, "BODY_SECONDS")
    client.send(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\nab")
    answer = client.answer()
    assert answer.startswith(b"HTTP/1.1 400") and b"body_stalled" in answer
