"""The HTTP routes of the engine.

`POST /generate` takes a GenerationRequest and streams GenerationEvents, one per line. The routes of
`core.spec.engine_calls` take one request and return one answer. `GET /healthz` responds once
requests are accepted. `GET /metrics` uses Prometheus' text format.
"""

import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from core.cores import usable_cores
from core.engine.engine import Engine
from core.engine.policy.request import TextsRequest
from core.engine.results import TextResult
from core.engine.text.answers import Detokenizer
from core.engine.text.prompts import PromptReader
from core.engine.text.texts import (
    TextsAnswer,
    TextsRead,
    classification_answer,
    embedding_answer,
)
from core.engine.text.undivided import UndividedAnswer
from core.errors import TunesmithError
from core.spec.base_model import BaseModelSpec
from core.spec.classification import ClassificationRequest
from core.spec.embedding import EmbeddingRequest
from core.spec.engine_calls import CLASSIFY, EMBED, Answered, Call
from core.spec.engine_protocol import EngineReport
from core.spec.generation import GenerationRequest
from worker.engine_face.http import (
    Handler,
    Items,
    answered,
    client_left,
    engine_application,
    health_response,
    next_item,
    read_body,
    streamed,
)
from worker.engine_face.tokenizer import tokenizer_handlers

logger = logging.getLogger(__name__)

STOP_SECONDS = 10
"""The time for the model thread to finish its step."""

Asked = TypeVar("Asked", GenerationRequest, ClassificationRequest, EmbeddingRequest)
AskedTexts = TypeVar("AskedTexts", ClassificationRequest, EmbeddingRequest)
Ready = TypeVar("Ready")


def create_app(
    engine: Engine,
    reader: PromptReader,
    describe: Callable[[], EngineReport],
    preload_base: BaseModelSpec | None = None,
    key: SecretStr | None = None,
) -> Starlette:
    """Return the ASGI application; its lifespan runs the model thread.

    `describe` returns the engine's current report. Callers must send `key`. Prompts are read on at
    most half of the cores, because the model needs the others.
    """
    hardware = describe().hardware
    readers = CapacityLimiter(max(1, usable_cores() // 2))
    thread = threading.Thread(
        target=_work, args=(engine, reader, preload_base), name="model", daemon=True
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        thread.start()
        yield
        engine.stop()
        await run_in_threadpool(thread.join, STOP_SECONDS)

    async def prepare(asked: Asked, read: Callable[[Asked], Ready]) -> Ready:
        if not reader.is_fetched(asked.base, asked.adapter):
            await run_in_threadpool(reader.fetch, asked.base, asked.adapter)
        return await to_thread.run_sync(read, asked, limiter=readers)

    async def generate(request: Request) -> Response:
        asked = await read_body(request, GenerationRequest, key)
        ready, token_bytes = await prepare(asked, reader.read)
        items = Items()
        answer = UndividedAnswer if ready.is_background else Detokenizer
        ticket = engine.submit(ready, answer(ready, token_bytes, hardware), items.emit)
        return await streamed(request, items, ready.sequences, partial(engine.cancel, ticket))

    def of_texts(
        call: Call[AskedTexts, Answered],
        read: Callable[[AskedTexts], TextsRequest],
        answer: Callable[[TextsRequest, Sequence[TextResult]], Answered],
    ) -> Handler:
        """Return the handler of a call with one result per text."""

        async def handle(request: Request) -> Response:
            ready = await prepare(await read_body(request, call.request, key), read)
            items = Items()
            ticket = engine.submit(ready, TextsAnswer(ready), items.emit)
            item = await next_item(request, items, partial(engine.cancel, ticket))
            if item is None:
                return client_left()
            if isinstance(item, TunesmithError):
                raise item
            assert isinstance(item, TextsRead)
            return answered(answer(ready, item.results))

        return handle

    async def healthz(_request: Request) -> Response:
        is_alive = thread.is_alive()
        return health_response(None if is_alive else "model thread ended", describe())

    calls = {
        CLASSIFY.path: of_texts(CLASSIFY, reader.read_texts, classification_answer),
        EMBED.path: of_texts(EMBED, reader.read_embedding, embedding_answer),
        **tokenizer_handlers(reader, key, readers),
    }
    return engine_application(generate, calls, healthz, engine.metrics.registry, lifespan)


def _work(engine: Engine, reader: PromptReader, preload_base: BaseModelSpec | None) -> None:
    """Run the model thread until the engine stops."""
    if preload_base is not None:
        try:
            engine.runner.load(reader.key_of_base(preload_base).base_key)
        except Exception:  # the first request for this base returns the error
            logger.exception("The base %s could not be preloaded.", preload_base.id)
    try:
        engine.run()
    except BaseException:
        # The state of the device is unknown now, and requests would wait forever.
        logger.critical("The model thread failed, so this process ends.", exc_info=True)
        _end_process()


def _end_process() -> None:
    """Close all connections at once. The engine's parent starts a new child."""
    os._exit(1)
