"""MiniLM's vectors from the endpoint are those of its authors' algorithm, for every client."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from tests.end_to_end.service import Service

TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "naïve 漢字 🎉",
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
    "word " * 200,
]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return service.client


@torch.inference_mode()
def published(folder: Path, texts: list[str]) -> np.ndarray:
    """Return what sentence-transformers computes: padded, masked means, then normalized."""
    modules = json.loads((folder / "modules.json").read_text())
    assert [each["type"].rpartition(".")[2] for each in modules[1:]] == ["Pooling", "Normalize"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    mask_BS1 = batch["attention_mask"][..., None].float()
    states_BSE = model(**batch).last_hidden_state
    means_BE = (states_BSE * mask_BS1).sum(dim=1) / mask_BS1.sum(dim=1).clamp(min=1e-9)
    return normalize(means_BE, dim=1).numpy()


def embedded(client: openai.OpenAI, given: Any, **options: Any) -> np.ndarray:
    answer = client.embeddings.create(model="minilm", input=given, **options)
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return np.array([each.embedding for each in answer.data])


def test_vectors_are_the_published_ones(client: openai.OpenAI, minilm: Path) -> None:
    expected = published(minilm, TEXTS)
    for options in ({}, {"encoding_format": "float"}):
        np.testing.assert_allclose(embedded(client, TEXTS, **options), expected, atol=1e-5, rtol=0)
    alike = expected @ expected.T
    assert alike[0, 1] > 0.5 > 0.3 > alike[0, 2]


def test_company_and_order_change_nothing(client: openai.OpenAI) -> None:
    together = embedded(client, [*TEXTS * 30][::-1])[::-1]
    for index, text in enumerate(TEXTS):
        alone = np.repeat(embedded(client, text), 30, axis=0)
        np.testing.assert_allclose(together[index :: len(TEXTS)], alone, atol=1e-5, rtol=0)


def test_token_ids_are_those_of_the_model(client: openai.OpenAI, minilm: Path) -> None:
    ids = AutoTokenizer.from_pretrained(minilm)(TEXTS)["input_ids"]
    np.testing.assert_allclose(embedded(client, ids), embedded(client, TEXTS), atol=1e-5, rtol=0)
    with pytest.raises(openai.BadRequestError) as caught:
        embedded(client, [[101, 99_999, 102]])
    assert caught.value.code == "invalid_token"


def test_limits_are_those_of_the_model(client: openai.OpenAI) -> None:
    short = embedded(client, TEXTS, dimensions=64)
    whole = embedded(client, TEXTS)[:, :64]
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(short, whole / lengths, atol=1e-5, rtol=0)
    for given, options, code in [
        ("Hi", {"dimensions": 385}, "invalid_value"),
        ("word " * 300, {}, "context_length_exceeded"),
    ]:
        with pytest.raises(openai.BadRequestError) as caught:
            embedded(client, given, **options)
        assert caught.value.code == code


def test_generator_is_no_embedder(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="smollm2", input="Hello")
    assert caught.value.code == "not_an_embedder"
