"""The HTTP routes of the bridge, with the same protocol as our own engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from core.spec.engine_calls import CLASSIFY, EMBED, Call
from core.spec.engine_protocol import EngineReport, NotServedHere
from core.spec.generation import GenerationRequest
from worker.engine_face.http import (
    Handler,
    Items,
    engine_application,
    health_response,
    read_body,
    streamed,
)
from worker.engine_face.tokenizer import tokenizer_handlers
from worker.vllm.bridge import Bridge


def create_app(
    bridge: Bridge, describe: Callable[[], EngineReport], key: SecretStr | None
) -> Starlette:
    """Return the ASGI application. `describe` returns the report; callers must send `key`."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        bridge.stop()
        await bridge.server.close()

    async def generate(request: Request) -> Response:
        asked = await read_body(request, GenerationRequest, key)
        items = Items()
        task = bridge.submit(asked, items.emit)
        return await streamed(request, items, asked.sampling.n, task.cancel)

    def not_served(call: Call[Any, Any], what: str) -> Handler:
        async def refuse(request: Request) -> Response:
            await read_body(request, call.request, key)
            raise NotServedHere(
                f"This engine is a bridge to a vLLM server and does not {what}. Start a Tunesmith "
                "engine (python -m worker.engine) for that.",
                param="model",
                code="unsupported_adapter",
            )

        return refuse

    async def healthz(_request: Request) -> Response:
        is_healthy = await bridge.server.is_healthy()
        error = None if is_healthy else "vLLM does not respond, or reports a failure"
        return health_response(error, describe())

    calls = {
        CLASSIFY.path: not_served(CLASSIFY, "serve classifiers"),
        EMBED.path: not_served(EMBED, "embed texts"),
        **tokenizer_handlers(bridge.reader, key, admit=bridge.require_base),
    }
    return engine_application(generate, calls, healthz, bridge.metrics.registry, lifespan)
