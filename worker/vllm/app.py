"""The HTTP routes of the bridge, with the same protocol as our own engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from core.spec.classification import ClassificationRequest
from core.spec.engine_protocol import EngineReport, NotServedHere
from core.spec.generation import GenerationRequest
from worker.engine_face.http import (
    Items,
    engine_application,
    health_response,
    read_body,
    streamed,
)
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

    async def classify(request: Request) -> Response:
        await read_body(request, ClassificationRequest, key)
        raise NotServedHere(
            "This engine is a bridge to a vLLM server and does not serve classifiers. Start a "
            "Tunesmith engine (python -m worker.engine) for them.",
            param="model",
            code="unsupported_adapter",
        )

    async def healthz(_request: Request) -> Response:
        is_healthy = await bridge.server.is_healthy()
        error = None if is_healthy else "vLLM does not respond, or reports a failure"
        return health_response(error, describe())

    return engine_application(generate, classify, healthz, bridge.metrics.registry, lifespan)
