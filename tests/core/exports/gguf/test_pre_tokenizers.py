import json

import pytest

from core.exports.gguf.pre_tokenizers import pre_tokenizer
from tests.core.exports.gguf.models import TINY
from tests.core.tiny import chat_tokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(numbers):
    regex = WORDS + numbers + REST
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def test_the_tiny_base_cuts_as_gpt_2():
    assert pre_tokenizer(json.loads((TINY / "tokenizer.json").read_text())) == "gpt-2"


@pytest.mark.parametrize(
    ("steps", "model", "name"),
    [
        ([DIGITS, BYTES | {"use_regex": True}], {}, "smollm"),
        ([split(r"\p{N}{1,3}"), BYTES], {"ignore_merges": True}, "llama-bpe"),
        ([split(r"\p{N}"), BYTES], {}, "qwen2"),
        ([split(r"\p{N}{1,3}"), BYTES], {}, None),  # llama.cpp ignores merges there
        ([split(r"\p{N}{1,2}"), BYTES], {}, None),
        ([BYTES | {"use_regex": True, "add_prefix_space": True}], {}, None),
        ([{"type": "Whitespace"}], {}, None),
    ],
)
def test_rules_are_recognized_exactly(steps, model, name):
    rules = {"type": "Sequence", "pretokenizers": steps}
    assert pre_tokenizer({"pre_tokenizer": rules, "model": {"type": "BPE", **model}}) == name


def test_a_tokenizer_without_rules_has_no_name():
    assert pre_tokenizer(json.loads(chat_tokenizer().backend_tokenizer.to_str())) is None
