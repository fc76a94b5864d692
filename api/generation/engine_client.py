"""The engine over HTTP: one request, one stream of events."""

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from io import BytesIO

import aiohttp
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticSerializationError

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec.base import Spec
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.generation import GenerationEvent, GenerationRequest, generation_event_adapter

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue, or a large base being loaded
CHECK_SECONDS = 2.0


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""What the way to the engine can raise."""


class _Refusal(Spec):
    message: str
    param: str | None = None
    code: str | None = None


class _RefusalBody(Spec):
    error: _Refusal


class EngineClient:
    """Holds the connections to the engine; there is no cap on them, as streams are long."""

    def __init__(self, url: str, key: SecretStr | None = None) -> None:
        self._url = url
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        self._session: aiohttp.ClientSession | None = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the engine's events; leaving the iteration cancels the request there.

        A refusal is raised before the first event: InvalidRequest, NotFound, or Unavailable
        when the engine is full or away.
        """
        try:
            async with self._http.post("/generate", data=_json(request, "messages")) as response:
                if response.status != HTTPStatus.OK:
                    raise _refusal(response.status, await response.read(), response.headers)
                async for line in _lines(response.content):
                    yield generation_event_adapter.validate_json(line)
        except _FAILURES as error:
            raise _away(error) from error

    async def classify(self, request: ClassificationRequest) -> ClassificationAnswer:
        """Return the scores; refusals and cancelling are those of `generate`."""
        try:
            async with self._http.post("/classify", data=_json(request, "input")) as response:
                content = await response.read()
        except _FAILURES as error:
            raise _away(error) from error
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, content, response.headers)
        return ClassificationAnswer.model_validate_json(content)

    async def check(self) -> None:
        """Return when the engine answers; Unavailable when it does not."""
        patience = aiohttp.ClientTimeout(total=CHECK_SECONDS)
        try:
            async with self._http.get("/healthz", timeout=patience) as response:
                status = response.status
        except _FAILURES as error:
            raise _away(error) from error
        if status != HTTPStatus.OK:
            raise Unavailable(f"The engine answers with {status}.")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made for the first request, since it belongs to the event loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                self._url,
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(
                    sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
                ),
                trust_env=False,  # no proxy stands between us
            )
        return self._session


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


def _away(error: Exception) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"The engine is away: {reason}.", code="engine_unavailable")


def _refusal(status: int, content: bytes, headers: Mapping[str, str]) -> TunesmithError:
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
            return Unavailable(
                said.message,
                param=said.param,
                code="rate_limit_exceeded" if status == 429 else said.code,
                retry_after_seconds=int(seconds) if seconds.isdigit() else 5,
            )
        case _:
            return TunesmithError(said.message, param=said.param, code=said.code)
