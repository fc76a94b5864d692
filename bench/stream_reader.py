"""A client with minimal overhead while it reads, so that it measures the service."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

MODEL = "tunesmith/tiny"
HELLO = [{"role": "user", "content": "Tell me about strings."}]


class StreamReader(asyncio.Protocol):
    """Sends one request and records its bytes with arrival times, to parse them later."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._arrivals: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._arrivals.append((time.monotonic(), data))

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)

    def events(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Yield every event line of the response, with the time at which it was complete."""
        rest = b""
        for arrived, data in self._arrivals:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                _, brace, event = line.partition(b"{")
                if brace:
                    yield arrived, json.loads(brace + event)

    def texts(self) -> Iterator[tuple[float, str]]:
        """Yield the non-empty texts of the API's chunks or the engine's events."""
        for arrived, event in self.events():
            if "error" in event:
                raise SystemExit(f"A stream failed: {event}")
            choices = event.get("choices") or [{"delta": {"content": event.get("text")}}]
            text = choices[0]["delta"].get("content")
            if text:
                yield arrived, text


async def follow(port: int, request: bytes, streams: int = 1) -> list[StreamReader]:
    """Send a request on several connections at once, and read every response to its end."""
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: StreamReader(request), "127.0.0.1", port)
        for _ in range(streams)
    ]
    readers = [reader for _, reader in opened]
    await asyncio.gather(*(reader.ended for reader in readers))
    return readers


def to_api(max_tokens: int, **fields: Any) -> bytes:
    """Return a streamed chat as bytes to send."""
    body = {"model": MODEL, "messages": HELLO, "max_tokens": max_tokens, "stream": True}
    return post("/v1/chat/completions", body | fields)


def to_engine(max_tokens: int, source: str) -> bytes:
    """Return the same request for the engine itself."""
    body = {
        "id": "direct",
        "base": {"id": MODEL, "source": source},
        "prompt": {"type": "chat", "messages": HELLO},
        "sampling": {"seed": 1, "max_tokens": max_tokens},
    }
    return post("/generate", body)


def post(path: str, body: dict[str, Any], key: str = "none") -> bytes:
    """Return a request whose connection ends with its answer."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        f"authorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
