"""What is refused before a request waits, and how prompts become tokens."""

import shutil
from pathlib import Path

import pytest
from transformers import GenerationConfig

from core.engine.text import prompt_tokens
from core.engine.text.prompts import PromptReader
from core.errors import InvalidRequest, NotFound
from core.models.load import load_config, load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    ChatPrompt,
    GenerationRequest,
    Prompt,
    SamplingSpec,
    TextPrompt,
    TokenPrompt,
)
from core.spec.strategy import FullSpec, PrefixSpec, PromptSpec
from tests.core.engine.bundles import write_bundle
from tests.core.tiny import save_base

HELLO = ChatPrompt(messages=({"role": "user", "content": "Hello"},))


def asked(base: BaseModelSpec, prompt: Prompt, adapter=None, max_tokens=5) -> GenerationRequest:
    sampling = SamplingSpec(seed=0, max_tokens=max_tokens)
    return GenerationRequest(id="r", base=base, adapter=adapter, prompt=prompt, sampling=sampling)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TokenPrompt(tokens=(5,) * 124), "prompt"),
        (TextPrompt(text="some words " * 80), "prompt"),
        (ChatPrompt(messages=({"role": "user", "content": "some words " * 80},)), "messages"),
    ],
)
def test_a_prompt_that_leaves_no_room_is_refused(reader, base, prompt, param):
    with pytest.raises(InvalidRequest, match="is 128 tokens") as caught:
        reader.read(asked(base, prompt))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TextPrompt(text="x" * 10_000), "prompt"),
        (ChatPrompt(messages=({"role": "user", "content": [{"text": "x" * 10_000}]},)), "messages"),
        (HELLO.model_copy(update={"tools": ({"name": "x" * 10_000},)}), "messages"),
    ],
)
def test_a_text_far_too_long_is_refused_untokenized(reader, base, prompt, param, monkeypatch):
    monkeypatch.setattr(prompt_tokens, "_plain_tokens", None)
    monkeypatch.setattr(prompt_tokens, "render_prompt", None)
    with pytest.raises(InvalidRequest, match="characters") as caught:
        reader.read(asked(base, prompt))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)


def test_a_prompt_may_fill_the_context_up_to_its_completion(reader, base):
    request, _ = reader.read(asked(base, TokenPrompt(tokens=(5,) * 123)))
    assert request.max_tokens == 5
    request, _ = reader.read(asked(base, TokenPrompt(tokens=(5,) * 100), max_tokens=None))
    assert request.max_tokens == 28


def test_a_prompt_as_long_as_the_context_is_refused_without_max_tokens(reader, base):
    with pytest.raises(InvalidRequest, match="is 128") as caught:
        reader.read(asked(base, TokenPrompt(tokens=(5,) * 128), max_tokens=None))
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("token", [-1, 100_000])
def test_a_token_outside_the_vocabulary_is_refused_with_its_place(reader, base, token):
    with pytest.raises(InvalidRequest, match=f"Token {token} at index 1") as caught:
        reader.read(asked(base, TokenPrompt(tokens=(5, token))))
    assert (caught.value.code, caught.value.param) == ("invalid_token", "prompt")


@pytest.mark.parametrize("prompt", [TokenPrompt(tokens=()), TextPrompt(text="")])
def test_an_empty_prompt_is_refused(reader, base, prompt):
    with pytest.raises(InvalidRequest, match="empty") as caught:
        reader.read(asked(base, prompt))
    assert caught.value.code == "empty_prompt"


@pytest.fixture
def variant(base, tmp_path):
    """Make a base with a changed tokenizer; its weights stay away, since nobody reads them here."""

    def make(**changes) -> BaseModelSpec:
        tokenizer = load_tokenizer(base)
        for name, value in changes.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(tmp_path)
        shutil.copy(Path(base.source) / "config.json", tmp_path)
        return BaseModelSpec(id=base.id, source=str(tmp_path))

    return make


def test_a_base_without_a_chat_template_says_what_to_do(reader, variant):
    plain = variant(chat_template=None)
    with pytest.raises(InvalidRequest, match="completions") as caught:
        reader.read(asked(plain, HELLO))
    assert (caught.value.code, caught.value.param) == ("no_chat_template", "messages")
    reader.read(asked(plain, TextPrompt(text="Hello")))


def test_a_tuned_model_speaks_the_template_of_its_bundle(reader, variant, adapters, tokenizer):
    plain = variant(chat_template=None)
    request, _ = reader.read(asked(plain, HELLO, adapters[0]))
    rendered = "<|start|>user\nHello<|end|>\n<|start|>assistant\n"
    assert tokenizer.decode(request.prompt_tokens) == rendered


def test_adapters_with_the_same_tokenizer_share_it(reader, base, adapters):
    vocabularies = {reader.read(asked(base, HELLO, adapter))[1] for adapter in adapters}
    assert len(vocabularies) == 1


def test_the_token_that_closes_an_answer_ends_a_sequence(reader, base, tokenizer):
    request, _ = reader.read(asked(base, HELLO))
    names = tokenizer.convert_ids_to_tokens(sorted(request.end_token_ids))
    assert names == ["<|endoftext|>", "<|end|>"]


def test_every_end_of_text_of_the_generation_config_counts(variant):
    base = variant(chat_template=None)
    GenerationConfig(eos_token_id=[7, 9]).save_pretrained(base.source)
    request, _ = PromptReader(None, lambda base: None).read(asked(base, TextPrompt(text="Hello")))
    assert request.end_token_ids == {0, 7, 9}


def test_a_base_that_is_not_there_is_not_found(reader, tmp_path):
    missing = BaseModelSpec(id="gone", source=str(tmp_path / "gone"))
    with pytest.raises(NotFound, match="gone") as caught:
        reader.read(asked(missing, HELLO))
    assert caught.value.code == "base_missing"
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    "change", [{"id": "another"}, {"revision": "abc123"}, {"source": "public/base"}]
)
def test_an_adapter_of_another_base_is_refused(reader, base, adapters, change):
    other = base.model_copy(update=change)
    with pytest.raises(InvalidRequest, match="was trained on tiny") as caught:
        reader.read(asked(other, HELLO, adapters[0]))
    assert (caught.value.code, caught.value.param) == ("adapter_of_another_base", "adapter")


def test_a_full_model_is_a_base_of_its_own(reader, store, tmp_path):
    base = save_base(tmp_path / "base")
    bundle = write_bundle(tmp_path / "bundle", store, base, FullSpec())
    request, _ = reader.read(asked(base, HELLO, bundle.ref))
    assert request.model.adapter_sha256 is None
    assert request.model.base != base
    load_config(request.model.base)


@pytest.mark.parametrize("strategy", [PrefixSpec(virtual_tokens=20), PromptSpec(virtual_tokens=20)])
def test_virtual_tokens_take_room_of_the_context(reader, store, tmp_path, strategy):
    base = save_base(tmp_path / "base", max_position_embeddings=64)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy)
    request, _ = reader.read(asked(base, TokenPrompt(tokens=(5,) * 40), bundle.ref, None))
    assert request.max_tokens == 4
    with pytest.raises(InvalidRequest, match="is 44 tokens"):
        reader.read(asked(base, TokenPrompt(tokens=(5,) * 40), bundle.ref, 5))
