"""The HTTP client of a worker for one engine. Errors are `TunesmithError`s."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import httpx

from core.errors import TunesmithError
from core.spec.base import Spec
from core.spec.bearer import bearer
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.engine_protocol import EngineBroke, EngineUnreachable, read_refusal
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationFailed,
    GenerationRequest,
    generation_event_adapter,
)
from worker.engine_client.find import EngineAddress

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # during a full queue, or while a large base is loaded


class EngineClient:
    """Owns the connections to one engine inside `async with`.

    Every method raises the engine's refusal, EngineUnreachable or EngineBroke. Cancelling a call
    cancels its request in the engine.
    """

    def __init__(self, engine: EngineAddress) -> None:
        self._http = httpx.AsyncClient(
            base_url=engine.url,
            headers={b"authorization": bearer(engine.key)} if engine.key else {},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy
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

    async def generate(self, request: GenerationRequest) -> list[AnswerEvent]:
        """Return all events of a request; raises what `events` raises."""
        return [event async for event in self.events(request)]

    async def events(self, request: GenerationRequest) -> AsyncIterator[AnswerEvent]:
        """Yield the events of a request as they arrive.

        Raises TunesmithError for an answer that fails, EngineBroke for one that ends too early.
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
                        raise event.as_error()
                    unfinished -= isinstance(event, ChoiceFinished)
                    yield event
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if unfinished:
            raise EngineBroke("The engine ended the answer too early.")

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered:
        """Return the only answer of a request."""
        try:
            response = await self._http.post(call.path, **_body(request))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        return call.answer.model_validate_json(response.content)


def _body(request: Spec) -> dict[str, Any]:
    return {
        "content": request.model_dump_json(),
        "headers": {"content-type": "application/json"},
    }


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split at newlines only; httpx would also split at other separators, inside a text."""
    begun = b""
    async for chunk in chunks:
        *lines, begun = (begun + chunk).split(b"\n")
        for line in lines:
            yield line


def _unreachable(error: httpx.HTTPError) -> EngineUnreachable | EngineBroke:
    reason = str(error) or type(error).__name__
    has_connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    kind = EngineBroke if has_connected else EngineUnreachable
    return kind(f"The engine is unavailable: {reason}.")


def _refusal(response: httpx.Response) -> TunesmithError:
    return read_refusal(response.status_code, response.content, response.headers)
