"""What the tokenizer of a model answers, beside plain transformers and the engine's own prompts."""

import pytest

from core.engine.text.tokenizing import describe_tokenizer, detokenize, tokenize
from core.errors import InvalidRequest
from core.models.load import load_tokenizer
from core.spec.generation import ChatPrompt, TextPrompt
from core.spec.objective import ClassificationSpec
from core.spec.strategy import PromptSpec
from core.spec.tokenization import DetokenizeRequest, TokenizeRequest
from tests.core.engine.bundles import write_bundle
from tests.core.tiny import save_base

CHAT = ChatPrompt(messages=({"role": "user", "content": "The quick fox"},))
TEXT = TextPrompt(text="The quick fox")


def test_tokens_are_those_of_a_generation_request(asker, reader, base, adapters):
    for prompt in (CHAT, TEXT):
        for adapter in (None, adapters[0]):
            request, _ = asker.read(prompt, adapter)
            asked = TokenizeRequest(id="t", base=base, adapter=adapter, prompt=prompt)
            found = tokenize(asked, reader.tokenizing(base, adapter))
            assert found.tokens == request.prompt_tokens
            assert (found.names, found.context_length) == (None, 128)


def test_messages_without_the_opening_of_an_answer(reader, base, tokenizer):
    asked = TokenizeRequest(id="t", base=base, prompt=CHAT, add_generation_prompt=False)
    found = tokenize(asked, reader.tokenizing(base, None))
    rendered = tokenizer.apply_chat_template(list(CHAT.messages), add_generation_prompt=False)
    assert list(found.tokens) == list(rendered["input_ids"])


def test_special_tokens_of_an_encoder_are_optional(tmp_path, reader):
    base = save_base(tmp_path / "bert", "bert")
    tokenizer = load_tokenizer(base)
    for special in (True, False):
        asked = TokenizeRequest(
            id="t", base=base, prompt=TEXT, add_special_tokens=special, with_names=True
        )
        found = tokenize(asked, reader.tokenizing(base, None))
        assert list(found.tokens) == tokenizer(TEXT.text, add_special_tokens=special)["input_ids"]
        assert list(found.names) == tokenizer.convert_ids_to_tokens(list(found.tokens))
    empty = asked.model_copy(update={"prompt": TextPrompt(text="")})
    assert tokenize(empty, reader.tokenizing(base, None)).tokens == ()


def test_virtual_tokens_of_an_adapter_shorten_the_context(tmp_path, reader, store):
    base = save_base(tmp_path / "bert", "bert")
    bundle = write_bundle(
        tmp_path / "bundle",
        store,
        base,
        PromptSpec(virtual_tokens=3),
        "classification",
        ClassificationSpec(labels=("a", "b")),
    )
    facts = describe_tokenizer(reader.tokenizing(base, bundle.ref))
    assert facts.context_length == 256 - 3
    assert (facts.cls_token, facts.sep_token, facts.eos_token) == ("[CLS]", "[SEP]", None)
    assert facts.chat_template is None


def test_text_comes_back_from_its_tokens_with_control_tokens_by_name(reader, base, tokenizer):
    model = reader.tokenizing(base, None)
    tokens = tuple(tokenizer("<|start|>größer, 東京 🙂<|end|>")["input_ids"])
    found = detokenize(DetokenizeRequest(id="t", base=base, tokens=tokens), model)
    assert found.text == "<|start|>größer, 東京 🙂<|end|>"


def test_what_cannot_be_tokenized_is_refused(tmp_path, reader, base):
    model = reader.tokenizing(base, None)
    with pytest.raises(InvalidRequest) as caught:
        detokenize(DetokenizeRequest(id="t", base=base, tokens=(5, 10_000)), model)
    assert (caught.value.code, caught.value.param) == ("invalid_token", "tokens")
    for special in (True, False):
        long = TokenizeRequest(
            id="t", base=base, prompt=TextPrompt(text="x" * 9000), add_special_tokens=special
        )
        with pytest.raises(InvalidRequest) as caught:
            tokenize(long, model)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    encoder = save_base(tmp_path / "bert", "bert")
    for opened in (True, False):
        asked = TokenizeRequest(id="t", base=encoder, prompt=CHAT, add_generation_prompt=opened)
        with pytest.raises(InvalidRequest, match="no chat template") as caught:
            tokenize(asked, reader.tokenizing(encoder, None))
        assert caught.value.param == "messages"
