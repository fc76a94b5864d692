"""The events of a response as server-sent events, while they are generated or from the database."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.app_state import AppState
from api.auth.caller import Caller
from api.responses import service
from core.errors import TunesmithError
from core.inference.answer import Chunks
from core.inference.responses.events import LAST_EVENTS
from core.inference.responses.items import Item
from core.inference.responses.output import FINAL
from core.spec.ids import ResponseId

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0


def event_response(events: Chunks) -> StreamingResponse:
    """Return a response that streams events under their names, without `[DONE]`, as OpenAI's."""
    return StreamingResponse(
        _sent(events), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def storing(state: AppState, caller: Caller, events: Chunks, items: list[Item]) -> Chunks:
    """Yield events; store the response before its last event, after which it may be used."""
    async with aclosing(events):
        async for event in events:
            if event["type"] in LAST_EVENTS:
                await run_in_threadpool(service.store, state, caller, event["response"], items)
            yield event


async def stored_events(state: AppState, caller: Caller, id_: ResponseId, after: int) -> Chunks:
    """Yield the events of a background response above `after`, until it has ended.

    It polls with short sessions: no connection or thread is occupied between two polls. An empty
    event keeps the connection alive.
    """
    silent_seconds = 0.0
    while True:
        events, response = await run_in_threadpool(service.new_events, state, caller, id_, after)
        for event in events:
            after = event["sequence_number"]
            yield event
        if response["status"] == "failed":  # its worker could not write this
            yield {
                "type": "response.failed",
                "response": response,
                "sequence_number": after + 1,
            }
        if response["status"] in FINAL:
            return
        silent_seconds = 0.0 if events else silent_seconds + POLL_SECONDS
        if silent_seconds >= HEARTBEAT_SECONDS:
            silent_seconds = 0.0
            yield {}
        await anyio.sleep(POLL_SECONDS)


async def _sent(events: Chunks) -> AsyncGenerator[bytes, None]:
    number = -1
    try:
        async with aclosing(events):
            async for event in events:
                number = event.get("sequence_number", number)
                yield _event(event) if event else b": still here\n\n"
    except TunesmithError as error:
        logger.warning("A stream ended with an error: %s", error.message)
        yield _event(
            {
                "type": "error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "sequence_number": number + 1,
            }
        )


def _event(event: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), to_json(event))
