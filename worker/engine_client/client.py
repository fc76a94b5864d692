"""An engine over HTTP, as a worker asks it: whole answers, or a `TunesmithError`."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import httpx

from core.errors import TunesmithError, Unavailable
from core.spec.base import Spec
from core.spec.bearer import bearer
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.engine_protocol import read_refusal
from core.spec.generation import (
    ChoiceFinished,
    GenerationEvent,
    GenerationFailed,
    GenerationRequest,
    generation_event_adapter,
)
from worker.engine_client.find import EngineAddress

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue, or a large base being loaded


class EngineClient:
    """Holds the connections to one engine inside `async with`."""

    def __init__(self, engine: EngineAddress) -> None:
        self._http = httpx.AsyncClient(
            base_url=engine.url,
            headers={b"authorization": bearer(engine.key)} if engine.key else {},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy stands between us
        )

    async def __aenter__(self) -> "EngineClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def generate(self, request: GenerationRequest) -> list[GenerationEvent]:
        """Return all events of a request; being cancelled cancels it there."""
        response = await self._ask("POST", "/generate", request)
        lines = response.content.splitlines()
        events = [generation_event_adapter.validate_json(line) for line in lines]
        if events and isinstance(failed := events[-1], GenerationFailed):
            raise Unavailable(failed.message, param=failed.param, code=failed.code)
        return events

    async def events(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield the events of a request as they come; being cancelled cancels it there.

        Raises TunesmithError for an answer that fails, Unavailable for one that ends too early.
        """
        unfinished = request.sampling.n
        try:
            async with self._http.stream("POST", "/generate", **_body(request)) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                async for line in _lines(response.aiter_bytes()):
                    event = generation_event_adapter.validate_json(line)
                    if isinstance(event, GenerationFailed):
                        raise TunesmithError(event.message, param=event.param, code=event.code)
                    unfinished -= isinstance(event, ChoiceFinished)
                    yield event
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if unfinished:
            raise Unavailable("The engine stopped in the middle.", code="engine_unavailable")

    async def classify(self, request: ClassificationRequest) -> ClassificationAnswer:
        response = await self._ask("POST", "/classify", request)
        return ClassificationAnswer.model_validate_json(response.content)

    async def _ask(self, method: str, path: str, request: Spec | None = None) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **_body(request))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        return response


def _body(request: Spec | None) -> dict[str, Any]:
    return {
        "content": None if request is None else request.model_dump_json(),
        "headers": {"content-type": "application/json"},
    }


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split at newlines only: httpx would also split at the separators within a text."""
    begun = b""
    async for chunk in chunks:
        *lines, begun = (begun + chunk).split(b"\n")
        for line in lines:
            yield line


def _unreachable(error: httpx.HTTPError) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"The engine could not be reached ({reason}).", code="engine_unavailable")


def _refusal(response: httpx.Response) -> TunesmithError:
    return read_refusal(response.status_code, response.content, response.headers)
