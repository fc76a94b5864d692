"""The HTTP face of the engine.

`POST /generate` takes a GenerationRequest and streams one GenerationEvent per line. Until
the first token an error is an HTTP status; after it, a line. `POST /classify` takes a
ClassificationRequest and answers with a ClassificationAnswer. `GET /healthz` answers as soon as
requests are taken, `GET /metrics` in Prometheus' text form.
"""

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.engine.answers import Item, ScoredAnswer, TextScored, WrittenAnswer
from core.engine.engine import Engine, Ticket
from core.engine.prompts import PromptReader
from core.errors import InvalidRequest, NotFound, TunesmithError, Unauthenticated, Unavailable
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.generation import ChoiceFinished, GenerationFailed, GenerationRequest
from core.spec.parity import NumberFormat
from core.spec.run import BaseModelSpec

logger = logging.getLogger(__name__)

STOP_SECONDS = 10
"""For the step that the model thread is at."""

Asked = TypeVar("Asked", GenerationRequest, ClassificationRequest)
Ready = TypeVar("Ready")


def create_app(
    engine: Engine,
    reader: PromptReader,
    preload_base: BaseModelSpec | None = None,
    key: SecretStr | None = None,
    precision: NumberFormat | None = None,
    hardware: str = "",
) -> Starlette:
    """Return the ASGI application; its lifespan runs the model thread.

    `key` is what callers must send, `hardware` what they are told that their answers come from.
    Half of the cores read prompts, whatever comes in: the model needs the others.
    """
    readers = CapacityLimiter(max(1, len(os.sched_getaffinity(0)) // 2))
    thread = threading.Thread(
        target=_work, args=(engine, reader, preload_base), name="model", daemon=True
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        thread.start()
        yield
        engine.stop()
        await run_in_threadpool(thread.join, STOP_SECONDS)

    async def read_body(request: Request, kind: type[Asked]) -> Asked:
        if key is not None and not _has_key(request, key):
            raise Unauthenticated(
                "The engine's key is missing or wrong. Give the API and the engine the same "
                "TUNESMITH_ENGINE_KEY.",
                code="invalid_engine_key",
            )
        try:
            return kind.model_validate_json(await request.body())
        except ValidationError as error:
            raise _invalid(error) from None

    async def made_ready(asked: Asked, read: Callable[[Asked], Ready]) -> Ready:
        if asked.adapter is not None:
            await run_in_threadpool(reader.fetch, asked.adapter)
        return await to_thread.run_sync(read, asked, limiter=readers)

    async def generate(request: Request) -> Response:
        asked = await read_body(request, GenerationRequest)
        ready, token_bytes = await made_ready(asked, reader.read)
        items = _Items()
        ticket = engine.submit(ready, WrittenAnswer(ready, token_bytes, hardware), items.emit)
        first = await _next_item(request, engine, ticket, items)
        if first is None:
            return Response(status_code=499)  # nobody is there to read it
        if isinstance(first, TunesmithError):
            raise first
        return StreamingResponse(
            _lines(engine, ticket, first, items), media_type="application/x-ndjson"
        )

    async def classify(request: Request) -> Response:
        asked = await read_body(request, ClassificationRequest)
        ready = await made_ready(asked, reader.read_texts)
        items = _Items()
        ticket = engine.submit(ready, ScoredAnswer(ready), items.emit)
        scores: dict[int, dict[str, float]] = {}
        while len(scores) < len(ready.texts):
            item = await _next_item(request, engine, ticket, items)
            if item is None:
                return Response(status_code=499)
            if isinstance(item, TunesmithError):
                raise item
            assert isinstance(item, TextScored)
            scores[item.index] = item.scores
        answer = ClassificationAnswer(scores=tuple(scores[i] for i in range(len(scores))))
        return Response(answer.model_dump_json(), media_type="application/json")

    async def healthz(_request: Request) -> Response:
        is_alive = thread.is_alive()
        return JSONResponse(
            {
                "status": "ok" if is_alive else "model thread ended",
                "precision": precision,
                "bases": [base.spec.id for base in engine.runner.resident_bases()],
                "adapters": engine.runner.resident_adapters(),
            },
            status_code=200 if is_alive else 503,
        )

    async def metrics(_request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, engine.metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            Route("/classify", classify, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ],
        exception_handlers={TunesmithError: _answer_error},
        lifespan=lifespan,
    )


class _Items:
    """The items of one request on their way from the model thread to its handler."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def emit(self, item: Item) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self) -> Item:
        return await self._queue.get()


def _work(engine: Engine, reader: PromptReader, preload_base: BaseModelSpec | None) -> None:
    """Run the model thread to its end."""
    if preload_base is not None:
        try:
            engine.runner.load(reader.key_of_base(preload_base).base_key)
        except Exception:  # the first request for it will say so to its caller
            logger.exception("The base %s could not be preloaded.", preload_base.id)
    try:
        engine.run()
    except BaseException:
        # What is on the device is unknown now, and requests would wait for ever.
        logger.critical("The model thread failed, so this process ends.", exc_info=True)
        _end_process()


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TunesmithError)
    return error_response(error)


def error_response(error: TunesmithError) -> JSONResponse:
    """Return an error before the first token as a status with an envelope."""
    match error:
        case InvalidRequest():
            status = 400
        case Unauthenticated():
            status = 401
        case NotFound():
            status = 404
        case Unavailable(code="queue_full"):
            status = 429
        case Unavailable():
            status = 503
        case _:
            status = 500
    headers = {}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_seconds)
    body = {"message": error.message, "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def _end_process() -> None:
    """Close every connection at once; whoever supervises the engine starts it again."""
    os._exit(1)


def _has_key(request: Request, key: SecretStr) -> bool:
    said = request.headers.get("authorization", "").encode("latin-1")
    return secrets.compare_digest(said, f"Bearer {key.get_secret_value()}".encode())


async def _next_item(
    request: Request, engine: Engine, ticket: Ticket, items: _Items
) -> Item | None:
    """Wait for an item; None, with the request cancelled, when the client goes first."""
    item = asyncio.create_task(items.get())
    gone = asyncio.ensure_future(request.receive())  # after the body only a disconnect can come
    try:
        await asyncio.wait({item, gone}, return_when=asyncio.FIRST_COMPLETED)
        if item.done():
            return item.result()
        engine.cancel(ticket)
        return None
    except asyncio.CancelledError:
        engine.cancel(ticket)
        raise
    finally:
        item.cancel()
        gone.cancel()


async def _lines(engine: Engine, ticket: Ticket, first: Item, items: _Items) -> AsyncIterator[str]:
    """Yield the events as JSON lines to the last one; a client that goes away cancels the rest."""
    unfinished = ticket.request.sequences
    item = first
    try:
        while True:
            if isinstance(item, TunesmithError):
                failed = GenerationFailed(code=item.code, message=item.message, param=item.param)
                yield failed.model_dump_json() + "\n"
                return
            assert not isinstance(item, TextScored)
            yield item.model_dump_json() + "\n"
            unfinished -= isinstance(item, ChoiceFinished)
            if unfinished == 0:
                return
            item = await items.get()
    finally:
        engine.cancel(ticket)


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(map(str, first["loc"])) or None
    return InvalidRequest(f"{param or 'body'}: {first['msg']}", param=param)
