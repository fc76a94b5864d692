"""Bodies of embeddings become requests to an engine, and answers become OpenAI's list."""

import json
import struct
from base64 import b64decode, b64encode

import pytest

from core.inference.embeddings import (
    TEXTS_PER_REQUEST,
    EmbeddingBody,
    embedding_list,
    plan_embeddings,
)
from core.inference.targets import Target
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import EmbeddingAnswer
from core.spec.ids import ModelId, ProjectId

TARGET = Target(ModelId("minilm"), BaseModelSpec(id="minilm", source="/models/minilm"), None)
VECTORS = [[0.1, -2.5, 1e-30], [1.0, 0.0, 3.25], [7.0, 8.0, 9.0]]


def body(**fields: object) -> EmbeddingBody:
    return EmbeddingBody.model_validate({"model": "minilm", "input": "text"} | fields)


def answer(vectors: list[list[float]], tokens: int) -> EmbeddingAnswer:
    packed = (struct.pack("<3f", *vector) for vector in vectors)
    return EmbeddingAnswer(
        vectors=tuple(b64encode(each).decode() for each in packed), tokens=tokens
    )


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("text", ("text",)),
        (["one", "two"], ("one", "two")),
        ([5, 6, 7], ((5, 6, 7),)),
        ([[5, 6], [7]], ((5, 6), (7,))),
    ],
)
def test_every_form_of_input_is_a_list_of_texts(given: object, texts: object) -> None:
    plan = plan_embeddings(TARGET, ProjectId("mine"), body(input=given, dimensions=3))
    [request] = plan.requests
    assert (request.texts, request.dimensions, request.project) == (texts, 3, "mine")


def test_large_body_becomes_requests_for_consecutive_texts() -> None:
    texts = [str(number) for number in range(2 * TEXTS_PER_REQUEST + 1)]
    plan = plan_embeddings(TARGET, ProjectId("mine"), body(input=texts))
    assert [len(each.texts) for each in plan.requests] == [TEXTS_PER_REQUEST] * 2 + [1]
    assert [text for request in plan.requests for text in request.texts] == texts
    assert len({request.id for request in plan.requests}) == 3


def test_list_has_the_vectors_of_all_answers_in_order_and_their_tokens() -> None:
    plan = plan_embeddings(TARGET, ProjectId("mine"), body(input=["a", "b", "c"]))
    whole = embedding_list(plan, [answer(VECTORS[:2], 5), answer(VECTORS[2:], 4)])
    assert json.loads(json.dumps(whole)) == whole
    assert whole["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert (whole["object"], whole["model"]) == ("list", "minilm")
    assert [each["index"] for each in whole["data"]] == [0, 1, 2]
    for each, vector in zip(whole["data"], VECTORS, strict=True):
        assert each["embedding"] == pytest.approx(vector, rel=1e-7)


def test_base64_has_little_endian_floats_of_32_bits() -> None:
    plan = plan_embeddings(TARGET, ProjectId("mine"), body(encoding_format="base64"))
    [item] = embedding_list(plan, [answer(VECTORS[1:2], 1)])["data"]
    assert b64decode(item["embedding"]).hex() == "0000803f0000000000005040"
