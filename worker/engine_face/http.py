"""HTTP code that all kinds of engines share: key and body, stream, errors.

Before the first event, an error is an HTTP status; after it, a line of the stream.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.engine.text.answers import Item
from core.engine.text.texts import TextsRead
from core.errors import InvalidRequest, TunesmithError
from core.spec.base import Spec
from core.spec.bearer import has_key
from core.spec.engine_protocol import (
    WRONG_KEY,
    EngineHealth,
    EngineKeyRefused,
    EngineReport,
    kind_of,
    refusal_body,
    refusal_headers,
)
from core.spec.generation import ChoiceFinished, GenerationFailed

Asked = TypeVar("Asked", bound=Spec)

Handler = Callable[[Request], Awaitable[Response]]


class Items:
    """The queue of one request's items, from the thread that computes them to the handler."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def emit(self, item: Item) -> None:
        """Add an item; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self) -> Item:
        return await self._queue.get()


def engine_application(
    generate: Handler,
    calls: Mapping[str, Handler],
    healthz: Handler,
    registry: CollectorRegistry,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> Starlette:
    """Return the ASGI application with the routes of every engine; `calls` are those by path.

    `core.spec.engine_calls` lists them.
    """

    async def metrics(_request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            *(Route(path, handler, methods=["POST"]) for path, handler in calls.items()),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ],
        exception_handlers={TunesmithError: answer_error},
        lifespan=lifespan,
    )


async def read_body(request: Request, kind: type[Asked], key: SecretStr | None) -> Asked:
    """Return the body; EngineKeyRefused without the right key, InvalidRequest for a wrong body."""
    if key is not None and not has_key(request.headers.get("authorization"), key):
        raise EngineKeyRefused(WRONG_KEY)
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise _invalid(error) from None


def answered(answer: Spec) -> Response:
    """Return the response with the only answer of a request."""
    return Response(answer.model_dump_json(), media_type="application/json")


def client_left() -> Response:
    """Return a response that nobody receives, because the client has disconnected."""
    return Response(status_code=499)


async def streamed(
    request: Request, items: Items, choices: int, cancel: Callable[[], object]
) -> Response:
    """Stream the events of `choices` choices as JSON lines; `cancel` if the client disconnects."""
    first = await next_item(request, items, cancel)
    if first is None:
        return client_left()
    if isinstance(first, TunesmithError):
        raise first
    return StreamingResponse(
        _lines(first, items, choices, cancel), media_type="application/x-ndjson"
    )


async def next_item(request: Request, items: Items, cancel: Callable[[], object]) -> Item | None:
    """Wait for an item. If the client disconnects first, cancel the request and return None."""
    item = asyncio.create_task(items.get())
    gone = asyncio.ensure_future(request.receive())  # after the body only a disconnect can come
    try:
        await asyncio.wait({item, gone}, return_when=asyncio.FIRST_COMPLETED)
        if item.done():
            return item.result()
        cancel()
        return None
    except asyncio.CancelledError:
        cancel()
        raise
    finally:
        item.cancel()
        gone.cancel()


async def _lines(
    first: Item, items: Items, choices: int, cancel: Callable[[], object]
) -> AsyncIterator[str]:
    """Yield the events as JSON lines up to the last one. A disconnect cancels the request."""
    unfinished = choices
    item = first
    try:
        while True:
            if isinstance(item, TunesmithError):
                failed = GenerationFailed(code=item.code, message=item.message, param=item.param)
                yield failed.model_dump_json() + "\n"
                return
            assert not isinstance(item, TextsRead)
            yield item.model_dump_json() + "\n"
            unfinished -= isinstance(item, ChoiceFinished)
            if unfinished == 0:
                return
            item = await items.get()
    finally:
        cancel()


async def answer_error(_request: Request, error: Exception) -> Response:
    """Return an error that occurs before the first event: a status, and the body of a refusal."""
    assert isinstance(error, TunesmithError)
    return Response(
        refusal_body(error),
        status_code=kind_of(error).status,
        headers=refusal_headers(error),
        media_type="application/json",
    )


def health_response(error: str | None, report: EngineReport) -> Response:
    """Return the response to GET /healthz: 200, or 503 with the error as its status."""
    health = EngineHealth(status=error or "ok", report=report)
    return Response(
        health.model_dump_json(),
        status_code=503 if error else 200,
        media_type="application/json",
    )


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(map(str, first["loc"])) or None
    return InvalidRequest(f"{param or 'body'}: {first['msg']}", param=param)
