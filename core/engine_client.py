"""The HTTP client of engines, for the API and the workers."""

import socket
from collections.abc import AsyncGenerator
from http import HTTPStatus
from io import BytesIO

import aiohttp
from aiohttp.connector import AddrInfoType
from pydantic import SecretStr
from pydantic_core import PydanticSerializationError

from core.errors import InvalidRequest
from core.spec.base import Spec
from core.spec.bearer import bearer
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.engine_protocol import EngineBroke, EngineUnreachable, read_refusal
from core.spec.generation import GenerationEvent, GenerationRequest, generation_event_adapter

CONNECT_SECONDS = 5.0  # a busy machine may let its processes wait for seconds
SILENCE_SECONDS = 600.0  # during a full queue, or while a large base is loaded

# A machine that is switched off sends nothing, so the kernel must probe the connection.
_PROBES = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 20_000),
}
SOCKET_OPTIONS = [
    (level, getattr(socket, name), value)
    for name, (level, value) in _PROBES.items()
    if hasattr(socket, name)  # the last option, for example, exists only on Linux
]


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""The possible errors of the connection to an engine."""

_NOBODY_THERE = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
"""Those that occur before the engine has received the request."""


class EngineClient:
    """Owns the connections to all engines; their number is unlimited, because streams are long.

    `silence_seconds`: after this time without a byte of an answer the engine counts as broken;
    None: never.
    """

    def __init__(
        self, key: SecretStr | None = None, silence_seconds: float | None = SILENCE_SECONDS
    ) -> None:
        self._silence_seconds = silence_seconds
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = bearer(key).decode()
        self._session: aiohttp.ClientSession | None = None

    async def generate(
        self, url: str, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of the engine at `url`; ending the iteration cancels the request there.

        Before the first event, raises the engine's refusal, as parsed by
        `core.spec.engine_protocol`, or EngineUnreachable; EngineBroke at any time.
        """
        try:
            body = _json(request, "messages")
            async with self._http.post(f"{url}/generate", data=body) as response:
                if response.status != HTTPStatus.OK:
                    refusal = await response.read()
                    raise read_refusal(response.status, refusal, response.headers)
                async for line in _lines(response.content):
                    yield generation_event_adapter.validate_json(line)
        except _FAILURES as error:
            raise _unreachable(error) from error

    async def ask(self, url: str, call: Call[Asked, Answered], request: Asked) -> Answered:
        """Return the only answer; refusals and cancellation work as in `generate`."""
        try:
            body = _json(request, call.param)
            async with self._http.post(f"{url}{call.path}", data=body) as response:
                content = await response.read()
        except _FAILURES as error:
            raise _unreachable(error) from error
        if response.status != HTTPStatus.OK:
            raise read_refusal(response.status, content, response.headers)
        return call.answer.model_validate_json(content)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Created at the first request, because it belongs to the running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
                timeout=aiohttp.ClientTimeout(
                    sock_connect=CONNECT_SECONDS, sock_read=self._silence_seconds
                ),
                trust_env=False,  # no proxy
            )
        return self._session


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for level, name, value in SOCKET_OPTIONS:
        made.setsockopt(level, name, value)
    return made


def _json(request: Spec, param: str) -> bytes | BytesIO:
    try:
        body = request.model_dump_json().encode()
    except PydanticSerializationError as error:
        if "depth" in str(error):
            raise InvalidRequest("The body is nested too deeply.") from error
        raise InvalidRequest("The text is not valid Unicode.", param=param) from error
    return body if len(body) < 1 << 20 else BytesIO(body)  # sent in chunks


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield lines; the reader's own limit is too short for the line of a scored prompt."""
    begun: list[bytes] = []
    async for chunk in content.iter_any():
        end, *others = chunk.split(b"\n")
        begun.append(end)
        for part in others:
            yield b"".join(begun)
            begun = [part]


def _unreachable(error: Exception) -> EngineUnreachable | EngineBroke:
    reason = str(error) or type(error).__name__
    kind = EngineUnreachable if isinstance(error, _NOBODY_THERE) else EngineBroke
    return kind(f"The engine is unavailable: {reason}.")
