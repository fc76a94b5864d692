"""Every kind of refusal keeps its kind, words and figures from an engine to whoever asked it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from core.engine_client import EngineClient
from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec import engine_protocol as protocol
from core.spec.base_model import BaseModelSpec
from core.spec.classification import ClassificationRequest
from core.spec.embedding import EmbeddingRequest
from core.spec.engine_calls import CLASSIFY, EMBED, Call
from core.spec.engine_protocol import REFUSALS, EngineKeyRefused, NotServedHere, kind_of
from core.spec.generation import GenerationRequest, SamplingSpec, TextPrompt
from tests.api.live import serve
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress
from worker.engine_face.http import engine_application, read_body

BASE = BaseModelSpec(id="tiny", source="/models/tiny")
PROMPT = TextPrompt(text="Hi")
GENERATION = GenerationRequest(id="g", base=BASE, prompt=PROMPT, sampling=SamplingSpec(seed=1))
CLASSIFICATION = ClassificationRequest(id="c", base=BASE, texts=("Hi",))

ERRORS: dict[str, tuple[TunesmithError, protocol.RefusalKind]] = {
    "not served here": (
        NotServedHere("Another kind of engine.", param="model", code="unsupported_adapter"),
        protocol.NOT_SERVED_HERE,
    ),
    "invalid": (InvalidRequest("Too long.", param="prompt", code="too_long"), protocol.INVALID),
    "other key": (EngineKeyRefused(protocol.WRONG_KEY), protocol.KEY_REFUSED),
    "base missing": (protocol.BaseMissing("No files of this base."), protocol.BASE_MISSING),
    "not found": (NotFound("No adapter.", code="adapter_not_found"), protocol.NOT_FOUND),
    "full": (
        Unavailable("Many wait.", code="queue_full", retry_after_seconds=3),
        protocol.FULL,
    ),
    "stopping": (Unavailable("It stops.", code="engine_stopping"), protocol.NOT_BEGUN),
    "vLLM unavailable": (Unavailable("No vLLM.", code="engine_unavailable"), protocol.NOT_BEGUN),
    "corrupt": (
        Unavailable("Damaged.", param="adapter", code="adapter_corrupt", retry_after_seconds=60),
        protocol.CORRUPT,
    ),
    "failed": (Unavailable("It failed.", code="engine_failed"), protocol.FAILED),
    "crashed": (TunesmithError("A \ud800 fault."), protocol.CRASHED),
}


@dataclass
class RefusingEngine:
    """The HTTP face of an engine that refuses everything with one error."""

    url: str = ""
    error: TunesmithError | None = None
    key: SecretStr | None = None


@pytest.fixture(scope="module")
def engine() -> Iterator[RefusingEngine]:
    engine = RefusingEngine()

    async def generate(request: Request) -> Response:
        await read_body(request, GenerationRequest, engine.key)
        assert engine.error is not None
        raise engine.error

    async def classify(request: Request) -> Response:
        await read_body(request, ClassificationRequest, engine.key)
        assert engine.error is not None
        raise engine.error

    calls = {CLASSIFY.path: classify}
    app = engine_application(
        generate, calls, generate, CollectorRegistry(), lambda _: nullcontext()
    )
    with serve(app) as engine.url:
        yield engine


async def api_generates(engine: RefusingEngine, key: SecretStr | None = None) -> None:
    client = EngineClient(key)
    try:
        async for _ in client.generate(engine.url, GENERATION):
            pass
    finally:
        await client.close()


async def ask_as_api(engine: RefusingEngine, call: Call[Any, Any], request: Any) -> None:
    client = EngineClient()
    try:
        await client.ask(engine.url, call, request)
    finally:
        await client.close()


async def api_classifies(engine: RefusingEngine) -> None:
    await ask_as_api(engine, CLASSIFY, CLASSIFICATION)


async def worker_generates(engine: RefusingEngine, key: SecretStr | None = None) -> None:
    async with OneEngineClient(EngineAddress(engine.url, key)) as client:
        await client.generate(GENERATION)


async def worker_classifies(engine: RefusingEngine) -> None:
    async with OneEngineClient(EngineAddress(engine.url)) as client:
        await client.ask(CLASSIFY, CLASSIFICATION)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize(
    "ask", [api_generates, api_classifies, worker_generates, worker_classifies]
)
def test_a_refusal_arrives_as_the_error_that_the_engine_raised(
    engine: RefusingEngine, ask: Callable, name: str
) -> None:
    raised, kind = ERRORS[name]
    engine.error, engine.key = raised, None
    with pytest.raises(TunesmithError) as caught:
        asyncio.run(ask(engine))
    got = caught.value
    assert (type(got), kind_of(got), kind_of(raised)) == (kind.error, kind, kind)
    assert (got.message, got.code, got.param) == (
        raised.message.replace("\ud800", "?"),
        raised.code,
        raised.param,
    )
    if isinstance(raised, Unavailable):
        assert isinstance(got, Unavailable)
        assert got.retry_after_seconds == raised.retry_after_seconds


def test_every_kind_is_tried_here() -> None:
    assert {kind for _, kind in ERRORS.values()} == set(REFUSALS)


@pytest.mark.parametrize("ask", [api_generates, worker_generates])
@pytest.mark.parametrize("key", [None, SecretStr("other"), SecretStr("s3cret, d\xe9j\xe0")])
def test_both_callers_send_the_key_and_are_told_when_it_is_another(
    engine: RefusingEngine, ask: Callable, key: SecretStr | None
) -> None:
    expected = SecretStr("s3cret, d\xe9j\xe0")
    engine.error, engine.key = NotFound("Past the key."), expected
    outcome = NotFound if key == expected else EngineKeyRefused
    with pytest.raises(outcome):
        asyncio.run(ask(engine, key))


@pytest.mark.parametrize("is_api", [True, False])
def test_an_older_engine_without_a_route_is_another_kind_of_engine(
    engine: RefusingEngine, is_api: bool
) -> None:
    """So another engine is asked, and the client learns what to do."""
    request = EmbeddingRequest(id="e", base=BASE, texts=("Hi",))

    async def ask() -> None:
        if is_api:
            await ask_as_api(engine, EMBED, request)
        async with OneEngineClient(EngineAddress(engine.url)) as client:
            await client.ask(EMBED, request)

    with pytest.raises(NotServedHere, match="Upgrade the engines"):
        asyncio.run(ask())


def test_the_body_of_a_refusal_is_json_with_the_header_to_come_back(
    engine: RefusingEngine,
) -> None:
    engine.error, engine.key = ERRORS["full"][0], None
    answer = httpx.post(f"{engine.url}/generate", content=GENERATION.model_dump_json())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "error": {"message": "Many wait.", "param": None, "code": "queue_full"}
    }
