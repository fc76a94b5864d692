"""Every endpoint of a batch returns OpenAI's object, and asks the engine in the background."""

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.inference.endpoints import ENDPOINTS, answer_in_background, checked_body
from core.spec.embedding import EmbeddingAnswer, EmbeddingRequest
from core.spec.engine_calls import EMBED, Call
from core.spec.generation import AnswerEvent, GenerationRequest
from tests.contract.contract import check_schema
from tests.core.inference.responses.planned import TARGET, answer

VECTOR = (0.5, -0.25)

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": ["hello", "again"]},
    "/v1/responses": {"input": "hello"},
    "/v1/embeddings": {"input": [f"text {number}" for number in range(70)]},
}
SCHEMAS = {
    "/v1/chat/completions": "CreateChatCompletionResponse",
    "/v1/completions": "CreateCompletionResponse",
    "/v1/responses": "Response",
    "/v1/embeddings": "CreateEmbeddingResponse",
}


class ScriptedEngine:
    """Says `Hi.` to every prompt, and gives each text the same vector."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest | EmbeddingRequest] = []

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        self.requests.append(request)
        for event in answer("Hi."):
            yield event

    async def ask(self, call: Call[Any, Any], request: Any) -> Any:
        assert call is EMBED
        self.requests.append(request)
        vector = base64.b64encode(struct.pack("<2f", *VECTOR)).decode()
        return EmbeddingAnswer(vectors=(vector,) * len(request.texts), tokens=len(request.texts))


def answered(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], ScriptedEngine]:
    engine = ScriptedEngine()
    checked = checked_body(url, {"model": "tunesmith/tiny"} | body)
    return asyncio.run(answer_in_background(url, engine, TARGET, "default", checked)), engine


def test_every_endpoint_is_tried_here() -> None:
    assert BODIES.keys() == SCHEMAS.keys() == ENDPOINTS.keys()


@pytest.mark.parametrize("url", ENDPOINTS)
def test_answer_follows_the_contract_and_gives_way_to_live_requests(url: str) -> None:
    found, engine = answered(url, BODIES[url])
    check_schema(SCHEMAS[url], found)
    assert engine.requests and all(request.background for request in engine.requests)


def test_all_texts_are_embedded_in_order() -> None:
    found, engine = answered("/v1/embeddings", BODIES["/v1/embeddings"])
    assert [each["index"] for each in found["data"]] == list(range(70))
    assert found["data"][-1]["embedding"] == list(VECTOR)
    assert [len(request.texts) for request in engine.requests] == [64, 6]


def test_response_of_a_batch_is_not_stored() -> None:
    found, _ = answered("/v1/responses", {"input": "hello", "store": True})
    assert found["store"] is False


@pytest.mark.parametrize(
    ("field", "value"), [("previous_response_id", "resp_1"), ("background", True)]
)
def test_batch_has_no_stored_responses(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field) as refused:
        answered("/v1/responses", {"input": "hello", field: value})
    assert refused.value.param == field
