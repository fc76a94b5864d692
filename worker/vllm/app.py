"""The HTTP face of the bridge: that of our own engine, over the same protocol."""

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
    """Return the ASGI application. `describe` returns the current report, `key` is the callers'."""

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
            "This engine drives a vLLM server, which labels no texts here. Start an engine of ours "
            "(python -m worker.engine) for classifiers.",
            param="model",
            code="unsupported_adapter",
        )

    async def healthz(_request: Request) -> Response:
        is_healthy = await bridge.server.is_healthy()
        fault = None if is_healthy else "vLLM does not answer, or says that it failed"
        return health_response(fault, describe())

    return engine_application(generate, classify, healthz, bridge.metrics.registry, lifespan)
