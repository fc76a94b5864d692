"""The engine process: `python -m worker.serve`. HTTP on one side, one model thread on the other.

`POST /generate` takes a GenerationRequest and streams one GenerationEvent per line. Until
the first token an error is an HTTP status; after it, a line. `GET /healthz` answers as
soon as requests are taken.
"""

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
import uvicorn
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import PreTrainedModel

from core.engine.adapters import AdapterFiles
from core.engine.engine import Engine, Item, Ticket
from core.engine.prompts import PromptReader
from core.engine.request import ModelKey
from core.engine.runner import Runner
from core.engine.scheduler import Limits, Scheduler
from core.errors import InvalidRequest, NotFound, TunesmithError, Unauthenticated, Unavailable
from core.models.load import load_base
from core.models.precision import pick_device, resolve_precision
from core.spec.generation import ChoiceFinished, GenerationFailed, GenerationRequest
from core.spec.run import BaseModelSpec
from core.storage.local import open_store
from worker.engine_settings import EngineSettings

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 10


def create_app(
    engine: Engine,
    reader: PromptReader,
    preload_base: BaseModelSpec | None = None,
    key: SecretStr | None = None,
) -> Starlette:
    """Return the ASGI application; its lifespan runs the model thread. `key`: what callers send."""

    def work() -> None:
        if preload_base is not None:
            try:
                engine.runner.activate(ModelKey(preload_base))
            except Exception:  # the first request for it will say so to its caller
                logger.exception("The base %s could not be preloaded.", preload_base.id)
        try:
            engine.run()
        except BaseException:
            # What is on the device is unknown now, and requests would wait for ever.
            logger.critical("The model thread failed, so this process ends.", exc_info=True)
            _end_process()

    thread = threading.Thread(target=work, name="model", daemon=True)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        thread.start()
        yield
        engine.stop()
        await run_in_threadpool(thread.join, SHUTDOWN_SECONDS)

    async def generate(request: Request) -> Response:
        if key is not None and not _has_key(request, key):
            return error_response(
                Unauthenticated(
                    "The engine's key is missing or wrong. Give the API and the engine the same "
                    "TUNESMITH_ENGINE_KEY.",
                    code="invalid_engine_key",
                )
            )
        try:
            asked = GenerationRequest.model_validate_json(await request.body())
        except ValidationError as error:
            return error_response(_invalid(error))
        items: asyncio.Queue[Item] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(item: Item) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        try:
            ready, token_bytes = await run_in_threadpool(reader.read, asked)
            ticket = engine.submit(ready, token_bytes, emit)
        except TunesmithError as error:
            return error_response(error)
        first = await _first_item(request, engine, ticket, items)
        if first is None:
            return Response(status_code=499)  # nobody is there to read it
        if isinstance(first, TunesmithError):
            return error_response(first)
        return StreamingResponse(
            _lines(engine, ticket, first, items), media_type="application/x-ndjson"
        )

    async def healthz(_request: Request) -> Response:
        is_alive = thread.is_alive()
        return JSONResponse(
            {
                "status": "ok" if is_alive else "model thread ended",
                "bases": [base.id for base in engine.runner.resident_bases()],
                "adapters": engine.runner.resident_adapters(),
            },
            status_code=200 if is_alive else 503,
        )

    return Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        lifespan=lifespan,
    )


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


async def _first_item(
    request: Request, engine: Engine, ticket: Ticket, items: asyncio.Queue[Item]
) -> Item | None:
    """Wait for the first event; None, with the request cancelled, when the client goes first."""
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


async def _lines(
    engine: Engine, ticket: Ticket, first: Item, items: asyncio.Queue[Item]
) -> AsyncIterator[str]:
    """Yield the events as JSON lines to the last one; a client that goes away cancels the rest."""
    unfinished = ticket.request.sampling.n
    item = first
    try:
        while True:
            if isinstance(item, TunesmithError):
                failed = GenerationFailed(code=item.code, message=item.message, param=item.param)
                yield failed.model_dump_json() + "\n"
                return
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


def build_engine(settings: EngineSettings) -> tuple[Engine, PromptReader]:
    """Put together what the settings describe; no model is loaded yet."""
    device = pick_device()
    dtype = resolve_precision(settings.precision, device)

    def load_model(base: BaseModelSpec) -> PreTrainedModel:
        return load_base(base, dtype, device)

    adapters = AdapterFiles(open_store(settings.storage_folder), settings.cache_folder)
    limits = Limits(
        max_batch=settings.max_batch,
        max_groups=settings.max_groups,
        max_waiting=settings.max_waiting,
        max_bases=settings.max_bases,
        max_adapters=settings.max_adapters,
    )
    runner = Runner(
        load_model, adapters.folder, max_bases=limits.max_bases, max_adapters=limits.max_adapters
    )
    return Engine(Scheduler(limits), runner), PromptReader(adapters)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = EngineSettings()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    engine, reader = build_engine(settings)
    uvicorn.run(
        create_app(engine, reader, settings.preload_base, settings.key),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
