"""The engine embeds texts and tokenizes over HTTP, for the clients of API and worker."""

import asyncio
from base64 import b64decode
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from core.engine_client import EngineClient
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import EmbeddingRequest
from core.spec.engine_calls import DESCRIBE_TOKENIZER, DETOKENIZE, EMBED, TOKENIZE
from core.spec.generation import ChatPrompt, TextPrompt
from core.spec.tokenization import DetokenizeRequest, TokenizeRequest, TokenizerRequest
from tests.core.tiny import save_base
from tests.leaving import leave_when
from tests.worker.serving import BASE, HELLO, Gate, Service, serving, text_of, wait_until
from worker.engine.settings import EngineSettings
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress

TEXTS = ("abcd", "A much longer text, of many more tokens.", "x y")


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> BaseModelSpec:
    return save_base(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Service]:
    settings = EngineSettings(
        storage_folder=tmp_path_factory.mktemp("storage"),
        cache_folder=tmp_path_factory.mktemp("cache"),
        precision="fp32",
        max_batch=4,
        max_waiting=4,
    )
    with serving(settings) as service:
        yield service


@pytest.fixture
def service(shared) -> Iterator[Service]:
    """The shared service, which every test must leave idle."""
    yield shared
    wait_until(shared.is_idle)


def test_vectors_are_those_of_transformers_and_tokens_are_counted(service, bert):
    asked = {"id": "e", "base": bert.model_dump(), "texts": TEXTS}
    answer = service.client.post("/embed", json=asked).json()
    model, tokenizer = (
        AutoModel.from_pretrained(bert.source).eval(),
        AutoTokenizer.from_pretrained(bert.source),
    )
    vectors, tokens = [], 0
    for text in TEXTS:
        encoded = tokenizer(text, return_tensors="pt")
        tokens += encoded["input_ids"].numel()
        with torch.inference_mode():
            vectors.append(model(**encoded).last_hidden_state[0].mean(dim=0))
    expected = normalize(torch.stack(vectors), dim=-1).numpy()
    found = np.stack([np.frombuffer(b64decode(vector), "<f4") for vector in answer["vectors"]])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert (answer["tokens"], answer["precision"]) == (tokens, "fp32")


def test_both_clients_get_answers_and_refusals(service, bert):
    address = EngineAddress(str(service.client.base_url))
    request = EmbeddingRequest(id="e", base=bert, texts=((5, 6, 7), (8,)))
    refused = request.model_copy(update={"base": BASE})

    async def ask_as_api(asked):
        client = EngineClient()
        try:
            return await client.ask(address.url, EMBED, asked)
        finally:
            await client.close()

    async def ask_as_worker(asked):
        async with OneEngineClient(address) as client:
            return await client.ask(EMBED, asked)

    answers = [asyncio.run(ask(request)) for ask in (ask_as_api, ask_as_worker)]
    assert answers[0] == answers[1] and len(answers[0].vectors) == 2 and answers[0].tokens == 4
    for ask in (ask_as_api, ask_as_worker):
        with pytest.raises(InvalidRequest, match="encoder") as caught:
            asyncio.run(ask(refused))
        assert caught.value.code == "not_an_embedder"


def test_a_client_that_leaves_takes_its_texts_along(service, bert, monkeypatch):
    gate = Gate()
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", gate.around(runner.run))
    asked = {"id": "e", "base": bert.model_dump(), "texts": ["Hello"] * 9}
    leave_when(lambda: service.engine._tickets, service.client, "/embed", asked)
    wait_until(lambda: not service.engine._tickets)
    gate.opened.set()


def test_tokens_of_a_chat_are_those_of_its_prompt_in_a_request(service):
    async def ask():
        client = EngineClient()
        url = str(service.client.base_url)
        about = {"id": "t", "base": BASE}
        chat = TokenizeRequest(**about, prompt=ChatPrompt(messages=tuple(HELLO["messages"])))
        found = await client.ask(url, TOKENIZE, chat)
        text = await client.ask(url, DETOKENIZE, DetokenizeRequest(**about, tokens=found.tokens))
        facts = await client.ask(url, DESCRIBE_TOKENIZER, TokenizerRequest(**about))
        plain = TokenizeRequest(**about, prompt=TextPrompt(text=facts.eos_token))
        end = await client.ask(url, TOKENIZE, plain)
        await client.close()
        return found, text, facts, end

    found, text, facts, end = asyncio.run(ask())
    tokenizer = AutoTokenizer.from_pretrained(BASE.source)
    rendered = tokenizer.apply_chat_template(HELLO["messages"], add_generation_prompt=True)
    assert list(found.tokens) == list(rendered["input_ids"])
    assert text.text == tokenizer.decode(rendered["input_ids"])
    assert end.tokens == (tokenizer.eos_token_id,)
    assert facts.context_length == found.context_length == 1024
    first = service.generate()
    assert text_of(first) and f'"prompt_tokens":{len(found.tokens)}' in first.text


def test_tokenizing_loads_no_weights(tmp_path):
    settings = EngineSettings(
        storage_folder=tmp_path / "storage", cache_folder=tmp_path / "cache", precision="auto"
    )
    asked = {"id": "t", "base": BASE.model_dump(), "prompt": {"type": "text", "text": "Hello"}}
    with serving(settings) as service:
        assert service.client.post("/tokenize", json=asked).json()["tokens"]
        report = service.client.get("/healthz").json()["report"]
    assert (report["bases"], report["precisions"]) == ([], [])
