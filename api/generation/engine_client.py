"""The engine over HTTP: one request, one stream of events."""

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
CHECK_SECONDS = 2.0


class _Refusal(Spec):
    message: str
    param: str | None = None
    code: str | None = None


class _RefusalBody(Spec):
    error: _Refusal


class EngineClient:
    """Holds the connections to the engine. httpx's cap of 100 is lifted: streams are long."""

    def __init__(self, url: str, key: SecretStr | None = None) -> None:
        headers = {b"authorization": f"Bearer {key.get_secret_value()}".encode()} if key else {}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy stands between us
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the engine's events; leaving the iteration cancels the request there.

        A refusal is raised before the first event: InvalidRequest, NotFound, or Unavailable
        when the engine is full or away.
        """
        try:
            async with self._http.stream(
                "POST",
                "/generate",
                content=_json(request, "messages"),
                headers={"content-type": "application/json"},
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread(), response.headers)
                async for line in _lines(response):
                    yield generation_event_adapter.validate_json(line)
        except httpx.HTTPError as error:
            raise _away(error) from error

    async def classify(self, request: ClassificationRequest) -> ClassificationAnswer:
        """Return the scores; refusals and cancelling are those of `generate`."""
        try:
            response = await self._http.post(
                "/classify",
                content=_json(request, "input"),
                headers={"content-type": "application/json"},
            )
        except httpx.HTTPError as error:
            raise _away(error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, response.content, response.headers)
        return ClassificationAnswer.model_validate_json(response.content)

    async def check(self) -> None:
        """Return when the engine answers; Unavailable when it does not."""
        try:
            response = await self._http.get("/healthz", timeout=CHECK_SECONDS)
        except httpx.HTTPError as error:
            raise _away(error) from error
        if response.status_code != httpx.codes.OK:
            raise Unavailable(f"The engine answers with {response.status_code}.")

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


def _away(error: httpx.HTTPError) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"The engine is away: {reason}.", code="engine_unavailable")


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
            return Unavailable(
                said.message,
                param=said.param,
                code="rate_limit_exceeded" if status == 429 else said.code,
                retry_after_seconds=int(seconds) if seconds.isdigit() else 5,
            )
        case _:
            return TunesmithError(said.message, param=said.param, code=said.code)
