"""Sends a request to the engines in the order of the API's router, until one accepts it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import SecretStr

from core.errors import TunesmithError
from core.records.database import Database
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.engine_protocol import may_ask_another, turned_down
from core.spec.generation import AnswerEvent, GenerationRequest
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import engines_for


async def events_of_any(
    database: Database, key: SecretStr | None, request: GenerationRequest
) -> AsyncGenerator[AnswerEvent, None]:
    """Yield the events of an engine; ending the iteration cancels the request there.

    Raises what `OneEngineClient.events` raises; before the first event, why no engine accepts the
    request.
    """
    failures: list[TunesmithError] = []
    for engine in engines_for(database, request.base, request.adapter, key):
        async with OneEngineClient(engine) as client, aclosing(client.events(request)) as events:
            try:
                first = await anext(events)
            except TunesmithError as error:
                failures.append(error)
                if not may_ask_another(failures):
                    raise
                continue
            yield first
            async for event in events:
                yield event
            return
    raise turned_down(failures)


async def ask_any(
    database: Database, key: SecretStr | None, call: Call[Asked, Answered], request: Asked
) -> Answered:
    """Return the only answer of a request; raises what `OneEngineClient.ask` raises."""
    failures: list[TunesmithError] = []
    for engine in engines_for(database, request.base, request.adapter, key):
        async with OneEngineClient(engine) as client:
            try:
                return await client.ask(call, request)
            except TunesmithError as error:
                failures.append(error)
                if not may_ask_another(failures):
                    raise
    raise turned_down(failures)


class AnyEngine:
    """All engines, with the interface of one: `core.inference.endpoints.Engine`."""

    def __init__(self, database: Database, key: SecretStr | None) -> None:
        self._database = database
        self._key = key

    def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        return events_of_any(self._database, self._key, request)

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered:
        return await ask_any(self._database, self._key, call, request)
