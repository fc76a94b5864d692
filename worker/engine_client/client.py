"""The client of a worker for one engine. Errors are `TunesmithError`s."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

from core.engine_client import SILENCE_SECONDS, EngineClient
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.engine_protocol import EngineBroke
from core.spec.generation import AnswerEvent, ChoiceFinished, GenerationFailed, GenerationRequest
from worker.engine_client.find import EngineAddress


class OneEngineClient:
    """Owns the connections to one engine inside `async with`.

    Every method raises the engine's refusal, EngineUnreachable or EngineBroke. Cancelling a call
    cancels its request in the engine.
    """

    def __init__(
        self, engine: EngineAddress, silence_seconds: float | None = SILENCE_SECONDS
    ) -> None:
        self._url = engine.url
        self._client = EngineClient(engine.key, silence_seconds)

    async def __aenter__(self) -> "OneEngineClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def generate(self, request: GenerationRequest) -> list[AnswerEvent]:
        """Return all events of a request; raises what `events` raises."""
        return [event async for event in self.events(request)]

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of a request as they arrive.

        Raises TunesmithError for an answer that fails, EngineBroke for one that ends too early.
        """
        unfinished = request.sampling.n
        async with aclosing(self._client.generate(self._url, request)) as events:
            async for event in events:
                if isinstance(event, GenerationFailed):
                    raise event.as_error()
                unfinished -= isinstance(event, ChoiceFinished)
                yield event
        if unfinished:
            raise EngineBroke("The engine ended the answer too early.")

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered:
        """Return the only answer of a request."""
        return await self._client.ask(self._url, call, request)
