"""Embeddings in OpenAI's form, on an engine that follows a script."""

import struct
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from core.inference.embeddings import MAX_INPUTS, TEXTS_PER_REQUEST
from tests.api import as_worker
from tests.api.live import Api
from tests.api.scripted_engine import DIMENSIONS, ScriptedEngine, vector_of

EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


@pytest.fixture
def stock(api: Api) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0)


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": None}])
def test_numbers_are_the_default(
    client: httpx.Client, engine: ScriptedEngine, tuned: str, encoding: dict[str, Any]
) -> None:
    body = {"model": tuned, "input": ["one", "one two"], "user": "me"} | encoding
    answer = client.post(EMBEDDINGS, json=body).json()
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (answer["object"], answer["model"]) == ("list", tuned)
    for index, (each, text) in enumerate(zip(answer["data"], body["input"], strict=True)):
        assert (each["object"], each["index"]) == ("embedding", index)
        assert each["embedding"] == pytest.approx(vector_of(text), rel=1e-7)
    assert engine.embedded[0].adapter is not None


def test_base64_is_that_of_little_endian_floats(client: httpx.Client, tuned: str) -> None:
    body = {"model": tuned, "input": "one two", "encoding_format": "base64", "dimensions": 3}
    [each] = client.post(EMBEDDINGS, json=body).json()["data"]
    found = struct.unpack("<3f", b64decode(each["embedding"], validate=True))
    assert found == pytest.approx(vector_of("one two")[:3])


@pytest.mark.parametrize("given", ["one two", ["one", "two"], [7, 8, 9], [[7, 8], [9]]])
def test_stock_client_gets_the_vectors_of_every_input(
    stock: openai.OpenAI, tuned: str, given: Any
) -> None:
    """Unless it is told otherwise, the client asks for base64 and decodes it."""
    for encoding in ({}, {"encoding_format": "float"}):
        answer = stock.embeddings.create(model=tuned, input=given, **encoding)
        texts = given if isinstance(given[0], str | list) and isinstance(given, list) else [given]
        assert [each.embedding for each in answer.data] == [
            pytest.approx(vector_of(text), rel=1e-6) for text in texts
        ]


def test_vectors_keep_the_order_of_the_input(
    client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    """The first texts are answered last: several requests to the engine are under way."""
    texts = ["be slow", *("x" * number for number in range(1, 3 * TEXTS_PER_REQUEST))]
    answer = client.post(EMBEDDINGS, json={"model": tuned, "input": texts}).json()
    assert len(engine.embedded) == 3
    assert [each["index"] for each in answer["data"]] == list(range(len(texts)))
    assert [each["embedding"][0] for each in answer["data"]] == list(map(len, texts))
    assert answer["usage"]["total_tokens"] == len(texts) + 1


def test_most_inputs_are_answered(client: httpx.Client, tuned: str) -> None:
    answer = client.post(EMBEDDINGS, json={"model": tuned, "input": ["x"] * MAX_INPUTS}).json()
    assert len(answer["data"]) == MAX_INPUTS
    assert len(answer["data"][-1]["embedding"]) == DIMENSIONS


def test_refusal_of_the_engine_reaches_the_client(client: httpx.Client) -> None:
    answer = client.post(EMBEDDINGS, json={"model": "tunesmith/tiny", "input": "Hi"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "model", "not_an_embedder")


def test_refusal_of_a_part_is_that_of_all(client: httpx.Client, tuned: str) -> None:
    texts = ["fine"] * TEXTS_PER_REQUEST + ["be full"]
    answer = client.post(EMBEDDINGS, json={"model": tuned, "input": texts})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["fine", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [[1], []]}, "input"),
        ({"input": [1, "two"]}, "input"),
        ({"input": ["one", [2]]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": ["text"] * (MAX_INPUTS + 1)}, "input"),
        ({"input": None}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1 << 20}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": "nobody"}, "model"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_wrong_field_is_named(
    client: httpx.Client, engine: ScriptedEngine, change: dict[str, Any], param: str
) -> None:
    answer = client.post(EMBEDDINGS, json={"model": "tunesmith/tiny", "input": "Hi"} | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].partition("[")[0].partition(".")[0] == param
    assert engine.embedded == []
