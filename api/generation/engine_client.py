"""Engines over HTTP: one request to one of them, one stream of events."""

import socket
from collections.abc import AsyncGenerator

import httpx
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticSerializationError

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec.base import Spec
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.generation import GenerationEvent, GenerationRequest, generation_event_adapter

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue, or a large base being loaded
IDLE_SECONDS = 2.0  # less than uvicorn's 5, so that no request meets a connection being closed

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


class _Refusal(Spec):
    message: str
    param: str | None = None
    code: str | None = None


class _RefusalBody(Spec):
    error: _Refusal


class EngineClient:
    """Holds the connections to all engines. httpx's cap of 100 is lifted: streams are long."""

    def __init__(self, key: SecretStr | None = None) -> None:
        headers = {b"authorization": f"Bearer {key.get_secret_value()}".encode()} if key else {}
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS
        )
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            transport=httpx.AsyncHTTPTransport(limits=limits, socket_options=SOCKET_OPTIONS),
            trust_env=False,  # no proxy stands between us
        )

    async def generate(
        self, url: str, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of the engine at `url`; leaving the iteration cancels the request there.

        A refusal is raised before the first event: InvalidRequest, NotFound, EngineRefused, or
        EngineUnreachable; EngineBroke at any time.
        """
        try:
            async with self._http.stream(
                "POST",
                f"{url}/generate",
                content=_json(request, "messages"),
                headers={"content-type": "application/json"},
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread(), response.headers)
                async for line in _lines(response):
                    yield generation_event_adapter.validate_json(line)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(error) from error

    async def classify(self, url: str, request: ClassificationRequest) -> ClassificationAnswer:
        """Return the scores; refusals and cancelling are those of `generate`."""
        try:
            response = await self._http.post(
                f"{url}/classify",
                content=_json(request, "input"),
                headers={"content-type": "application/json"},
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, response.content, response.headers)
        return ClassificationAnswer.model_validate_json(response.content)

    async def close(self) -> None:
        await self._http.aclose()


def _json(request: Spec, param: str) -> bytes:
    try:
        return request.model_dump_json().encode()
    except PydanticSerializationError as error:
        raise InvalidRequest("The text is not valid Unicode.", param=param) from error


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Split at newlines only; httpx would also split at U+2028, which JSON may hold as it is."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _away(error: httpx.HTTPError | httpx.InvalidURL) -> EngineUnreachable | EngineBroke:
    reason = str(error) or type(error).__name__
    is_nobody_there = isinstance(
        error,
        (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL),
    )
    kind = EngineUnreachable if is_nobody_there else EngineBroke
    return kind(f"The engine is away: {reason}.")


def _refusal(status: int, content: bytes, headers: httpx.Headers) -> TunesmithError:
    try:
        said = _RefusalBody.model_validate_json(content).error
    except ValidationError:
        said = _Refusal(message=f"The engine failed with status {status}.")
    match status:
        case 400:
            return InvalidRequest(said.message, param=said.param, code=said.code)
        case 404:
            return NotFound(said.message, param=said.param, code=said.code)
        case 429 | 503:
            seconds = headers.get("retry-after", "")
            is_refused = status == 429 or said.code == "engine_stopping"
            kind = EngineRefused if is_refused else Unavailable
            return kind(
                said.message,
                param=said.param,
                code="rate_limit_exceeded" if status == 429 else said.code,
                retry_after_seconds=int(seconds) if seconds.isdigit() else 5,
            )
        case _:
            return TunesmithError(said.message, param=said.param, code=said.code)
