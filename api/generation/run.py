"""Runs the engine requests of one answer: one for a chat, one per prompt of a completion."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request

from api.app_state import Engines
from core.errors import Unavailable
from core.inference.answer import Events
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationFailed,
    GenerationRequest,
)

Result = TypeVar("Result")


async def run(engines: Engines, requests: Sequence[GenerationRequest]) -> Events:
    """Yield the events of all requests as they arrive. Any failure ends all of them."""
    if len(requests) == 1:  # no task and no queue, whose cost every token would pay
        async with aclosing(_checked(engines, requests[0])) as events:
            async for event in events:
                yield 0, event
        return
    items: asyncio.Queue[tuple[int, AnswerEvent] | BaseException | None] = asyncio.Queue()

    async def follow(index: int, request: GenerationRequest) -> None:
        try:
            async with aclosing(_checked(engines, request)) as events:
                async for event in events:
                    items.put_nowait((index, event))
            items.put_nowait(None)
        except Exception as error:
            items.put_nowait(error)

    tasks = [asyncio.create_task(follow(index, each)) for index, each in enumerate(requests)]
    try:
        unfinished = len(tasks)
        while unfinished:
            item = await items.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                unfinished -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        # When the client has left, anyio would cancel this wait repeatedly, and with it the tasks:
        # the second time while they close their connections, which would then stay open.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _checked(
    engines: Engines, request: GenerationRequest
) -> AsyncGenerator[AnswerEvent, None]:
    """Yield the engine's events of one request; raise its error, or one if it ends too early."""
    unfinished = request.sampling.n
    async with aclosing(engines.generate(request)) as events:
        async for event in events:
            if isinstance(event, GenerationFailed):
                raise event.as_error()
            unfinished -= isinstance(event, ChoiceFinished)
            yield event
    if unfinished:
        raise Unavailable("The engine ended the answer too early.", code="engine_unavailable")


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; if the client leaves, cancel it and raise ClientDisconnect."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_client_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _client_gone(request: Request) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
