"""Routes requests to any number of engines.

A request goes to the most suitable engine. If that engine rejects it, or fails before the first
event, the next one is tried; not after the first event, because the client has received it.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from api.generation.engine_roster import EngineRoster
from core.engine_client import EngineClient
from core.errors import TunesmithError
from core.records.engine_order import in_order
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.engine_protocol import (
    EngineBroke,
    EngineUnreachable,
    may_ask_another,
    turned_down,
)
from core.spec.generation import GenerationEvent, GenerationRequest
from core.spec.model_request import ModelRequest

logger = logging.getLogger(__name__)

ROSTER_SECONDS = 1.0
"""The maximum age of the list of engines."""

Result = TypeVar("Result")


class EngineRouter:
    """Chooses an engine for each request, and counts the requests in flight on each."""

    def __init__(self, client: EngineClient, roster: EngineRoster) -> None:
        self._client = client
        self._roster = roster
        self._in_flight: Counter[str] = Counter()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Yield an engine's events; ending the iteration cancels the request there.

        Refusals are raised before the first event: InvalidRequest, NotFound, or Unavailable if all
        engines are full or unavailable.
        """

        async def begin(url: str) -> tuple[GenerationEvent, AsyncGenerator[GenerationEvent, None]]:
            events = self._events(url, request)
            return await anext(events), events

        first, events = await self._ask(request, begin)
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered:
        """Return the only answer; refusals and cancelling are those of `generate`."""

        async def answer(url: str) -> Answered:
            with self._counted(url, request.sequences):
                return await self._client.ask(url, call, request)

        return await self._ask(request, answer)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(
        self,
        request: GenerationRequest | ModelRequest,
        ask: Callable[[str], Awaitable[Result]],
    ) -> Result:
        """Return the answer of the first engine that accepts the request."""
        failures: list[TunesmithError] = []
        tried: set[str] = set()
        for max_age_seconds in (ROSTER_SECONDS, 0.0):  # then with a fresh list
            engines = await self._roster.engines(max_age_seconds)
            untried = [engine for engine in engines if engine.url not in tried]
            for engine in in_order(untried, request.base, request.adapter, self._in_flight):
                tried.add(engine.url)
                try:
                    return await ask(engine.url)
                except TunesmithError as error:
                    failures.append(error)
                    if not may_ask_another(failures):
                        raise
                    if isinstance(error, EngineUnreachable):
                        self._roster.leave_out(engine)
                    logger.info("%s does not take %s: %s", engine.url, request.id, error)
        raise turned_down(failures)

    async def _events(
        self, url: str, request: GenerationRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of one engine, at least one of them."""
        has_begun = False
        with self._counted(url, request.sampling.n):
            async with aclosing(self._client.generate(url, request)) as events:
                async for event in events:
                    has_begun = True
                    yield event
        if not has_begun:
            raise EngineBroke("The engine sent an empty answer.")

    @contextmanager
    def _counted(self, url: str, sequences: int) -> Iterator[None]:
        self._in_flight[url] += sequences
        try:
            yield
        finally:
            self._in_flight[url] -= sequences
            if not self._in_flight[url]:
                del self._in_flight[url]
