"""The bytes of tokens put together are what the tokenizer decodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.engine.text.text_stream import TextStream
from core.engine.text.token_bytes import TokenBytes
from core.errors import InvalidRequest


@pytest.fixture(scope="module")
def sentencepiece() -> PreTrainedTokenizerFast:
    """A vocabulary as Llama 2 has it: U+2581 for the space, byte tokens for what is rare."""
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["\u2581", "\u2581the", "\u2581a", "cat", "s", "é", "東"]
    tokenizer = Tokenizer(
        models.BPE({word: index for index, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """A vocabulary as T5 has it: the first word too is spelled with a space before it."""
    words = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581the", "\u2581a", "\u2581cat", "é", "東"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def joined(token_bytes: TokenBytes, ids: list[int]) -> str:
    return b"".join(map(token_bytes.text_bytes, ids)).decode("utf-8", errors="replace")


@given(data=st.data())
def test_byte_level_tokens_spell_what_decode_says(data, tokenizer):
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert joined(TokenBytes(tokenizer), ids) == decoded


@given(text=st.text("theacs é東🙂\n", max_size=12))
def test_sentencepiece_tokens_spell_what_decode_says(text, sentencepiece):
    ids = sentencepiece(text)["input_ids"]
    assert joined(TokenBytes(sentencepiece), ids) == text
    assert sentencepiece.decode(ids, clean_up_tokenization_spaces=False) == text


@given(words=st.lists(st.sampled_from(["the", "a", "cat", "é 東"]), min_size=1, max_size=5))
def test_a_text_of_metaspace_tokens_loses_only_its_first_space(words, metaspace):
    ids = metaspace(" ".join(words))["input_ids"]
    token_bytes = TokenBytes(metaspace)
    stream = TextStream(drops_first_space=token_bytes.marks_first_word)
    pieces = [*(stream.push(token_bytes.text_bytes(each)) for each in ids), stream.finish()]
    text = "".join(piece.text for piece in pieces if piece is not None)
    assert text == metaspace.decode(ids, skip_special_tokens=True)
    assert not text.startswith(" ")


def test_only_metaspace_marks_the_first_word(tokenizer, sentencepiece):
    assert not TokenBytes(tokenizer).marks_first_word
    assert not TokenBytes(sentencepiece).marks_first_word


def test_special_tokens_have_a_name_but_no_text(tokenizer):
    token_bytes = TokenBytes(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert token_bytes.text_bytes(end) == b""
    assert token_bytes.decoded_bytes(end) == b"<|end|>"


def test_an_added_token_that_is_not_special_is_text(sentencepiece):
    sentencepiece.add_tokens([AddedToken("<tool_call>", special=False)])
    token = sentencepiece.convert_tokens_to_ids("<tool_call>")
    assert TokenBytes(sentencepiece).text_bytes(token) == b"<tool_call>"


def test_an_id_of_the_padded_embedding_has_no_text(tokenizer):
    assert TokenBytes(tokenizer).text_bytes(len(tokenizer) + 3) == b""


def test_a_tokenizer_of_another_kind_is_refused():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(InvalidRequest, match="WordPiece") as caught:
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert caught.value.code == "unsupported_tokenizer"
