"""Engines over HTTP: one request to one of them, one stream of events."""

import socket
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from io import BytesIO

import aiohttp
from aiohttp.connector import AddrInfoType
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticSerializationError

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec.base import Spec
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.engine import Refusal, RefusalBody
from core.spec.generation import GenerationEvent, GenerationRequest, generation_event_adapter

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue, or a large base being loaded

# A machine that is switched off says nothing: the kernel has to ask whether it is still there.
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
    if hasattr(socket, name)  # the last one, for instance, is Linux's own
]


class EngineUnreachable(Unavailable):
    """Nobody answers at the engine's address."""

    code = "engine_unavailable"


class EngineBroke(Unavailable):
    """The connection ended before the answer did; the engine had the request."""

    code = "engine_unavailable"


class EngineRefused(Unavailable):
    """The engine is full, or about to stop; it has not begun with the request."""


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""What the way to the engine can raise."""

_NOBODY_THERE = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
"""Of these what comes before the engine has the request."""


class EngineUnfit(InvalidRequest):
    """The engine is of a kind that cannot do it; another one may."""


_NOT_BEGUN = {"engine_stopping", "engine_unavailable"}
"""Said by an engine that is about to stop, or by one whose vLLM server is away."""


class EngineClient:
    """Holds the connections to all engines; there is no cap on them, as streams are long."""

    def __init__(self, key: SecretStr | None = None) -> None:
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        self._session: aiohttp.ClientSession | None = None

    async def generate(
        self, url: str, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of the engine at `url`; leaving the iteration cancels the request there.

        A refusal is raised before the first event: InvalidRequest, NotFound, EngineUnfit,
        EngineRefused, or EngineUnreachable; EngineBroke at any time.
        """
        try:
            body = _json(request, "messages")
            async with self._http.post(f"{url}/generate", data=body) as response:
                if response.status != HTTPStatus.OK:
                    raise _refusal(response.status, await response.read(), response.headers)
                async for line in _lines(response.content):
                    yield generation_event_adapter.validate_json(line)
        except _FAILURES as error:
            raise _away(error) from error

    async def classify(self, url: str, request: ClassificationRequest) -> ClassificationAnswer:
        """Return the scores; refusals and cancelling are those of `generate`."""
        try:
            body = _json(request, "input")
            async with self._http.post(f"{url}/classify", data=body) as response:
                content = await response.read()
        except _FAILURES as error:
            raise _away(error) from error
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, content, response.headers)
        return ClassificationAnswer.model_validate_json(content)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made for the first request, since it belongs to the event loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
                timeout=aiohttp.ClientTimeout(
                    sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
                ),
                trust_env=False,  # no proxy stands between us
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
    return body if len(body) < 1 << 20 else BytesIO(body)  # which is sent in pieces


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Split at newlines; the reader itself takes no line as long as a scored prompt may be."""
    begun: list[bytes] = []
    async for chunk in content.iter_any():
        end, *others = chunk.split(b"\n")
        begun.append(end)
        for part in others:
            yield b"".join(begun)
            begun = [part]


def _away(error: Exception) -> EngineUnreachable | EngineBroke:
    reason = str(error) or type(error).__name__
    kind = EngineUnreachable if isinstance(error, _NOBODY_THERE) else EngineBroke
    return kind(f"The engine is away: {reason}.")


def _refusal(status: int, content: bytes, headers: Mapping[str, str]) -> TunesmithError:
    try:
        said = RefusalBody.model_validate_json(content).error
    except ValidationError:
        said = Refusal(message=f"The engine failed with status {status}.")
    match status:
        case 400:
            return InvalidRequest(said.message, param=said.param, code=said.code)
        case 404:
            return NotFound(said.message, param=said.param, code=said.code)
        case 421:
            return EngineUnfit(said.message, param=said.param, code=said.code)
        case 429 | 503:
            seconds = headers.get("retry-after", "")
            is_refused = status == 429 or said.code in _NOT_BEGUN
            kind = EngineRefused if is_refused else Unavailable
            return kind(
                said.message,
                param=said.param,
                code="rate_limit_exceeded" if status == 429 else said.code,
                retry_after_seconds=int(seconds) if seconds.isdigit() else 5,
            )
        case _:
            return TunesmithError(said.message, param=said.param, code=said.code)
