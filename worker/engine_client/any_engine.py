"""Sends a request to the engines in the order of the API's router, until one accepts it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import SecretStr

from core.errors import TunesmithError
from core.records.database import Database
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
