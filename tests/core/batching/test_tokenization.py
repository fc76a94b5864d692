"""A text that continues another one is tokenized without what the beginning of a text gets."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.batching.render import render_example
from core.batching.tokenization import encode, encode_continued, opening_tokens, plain_prompt
from core.datasets.formats import CompletionExample

PIECES = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "▁Oslo", "Oslo", "▁Norway", ":", "▁:", "Norway"]


def sentencepiece(legacy):
    """A SentencePiece tokenizer as Llama 2 has it, or as newer conversions do."""
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    letters = sorted(set("".join(PIECES)) - {"▁", ":"})
    vocabulary |= {letter: len(PIECES) + index for index, letter in enumerate(letters)}
    merges = [("O", "s"), ("Os", "l"), ("Osl", "o"), ("▁", "Oslo")]
    merges += [(word[:i], word[i]) for word in ("Norway",) for i in range(1, len(word))]
    merges += [("▁", "Norway")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_completion_after_a_space_has_no_second_space(legacy):
    tokenizer = sentencepiece(legacy)
    row = render_example(tokenizer, CompletionExample("Norway: ", "Oslo"))
    pieces = tokenizer.convert_ids_to_tokens(list(row.tokens))
    assert pieces == ["▁Norway", ":", "▁", "Oslo", "</s>"]
    assert pieces[row.trained.index(True) :] == ["Oslo", "</s>"]


@pytest.mark.parametrize("legacy", [True, False])
def test_only_the_beginning_of_a_text_gets_a_space(legacy):
    tokenizer = sentencepiece(legacy)
    (first,), (later,), (spaced,) = (
        encode(tokenizer, ["Oslo"]),
        encode_continued(tokenizer, ["Oslo"]),
        encode_continued(tokenizer, [" Oslo"]),
    )
    assert tokenizer.convert_ids_to_tokens(first) == ["▁Oslo"]
    assert tokenizer.convert_ids_to_tokens(later) == ["Oslo"]
    assert tokenizer.convert_ids_to_tokens(spaced) == ["▁Oslo"]


def test_byte_level_texts_are_the_same_wherever_they_stand(chat_tokenizer):
    for text in ("Oslo", " Oslo", "\n\nOslo", "", "日本"):
        assert encode(chat_tokenizer, [text]) == encode_continued(chat_tokenizer, [text])


def test_plain_prompt_is_opened_and_not_closed(tiny_tokenizer):
    tokenizer = tiny_tokenizer("bart")
    assert opening_tokens(tokenizer) == (tokenizer.bos_token_id,)
    assert tokenizer.decode(plain_prompt(tokenizer, "Why?")) == "<s>Why?"


def test_row_begins_with_the_prompt_of_the_endpoint_whatever_the_completion(chat_tokenizer):
    for prompt, completion in (("Capital of Norway: ", "Oslo"), ("a", "\nb"), ("x ab", "cd")):
        row = render_example(chat_tokenizer, CompletionExample(prompt, completion))
        ids = plain_prompt(chat_tokenizer, prompt)
        assert list(row.tokens[: len(ids)]) == ids
        assert row.trained.index(True) == len(ids)
