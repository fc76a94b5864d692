"""Recognizes the pre-tokenizer of a byte-level BPE tokenizer by its rules.

llama.cpp has the rules of published tokenizers in its code, by name. Each name here is for exactly
the rules below, and `token_notes` compares the tokens afterwards.
"""

from collections.abc import Mapping
from typing import Any

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_NAMES: dict[tuple[str, ...], str] = {
    ("gpt-2",): "gpt-2",
    ("digits", "gpt-2"): "smollm",
    (_WORDS + r"\p{N}{1,3}" + _REST, "bytes"): "llama-bpe",
    (_WORDS + r"\p{N}" + _REST, "bytes"): "qwen2",
}
_WITHOUT_MERGES = {"llama-bpe"}
"""llama.cpp takes a word that is a token as that token, whatever the merges would make of it."""


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name for the pre-tokenizer of a tokenizer in JSON, if it has one.

    The JSON is that of the loaded tokenizer: for some families, transformers replaces the rules in
    `tokenizer.json`.
    """
    rules = tokenizer["pre_tokenizer"] or {}
    steps = rules["pretokenizers"] if rules.get("type") == "Sequence" else [rules]
    name = _NAMES.get(tuple(_step(step) for step in steps))
    ignores_merges = bool(tokenizer["model"].get("ignore_merges"))
    return name if ignores_merges == (name in _WITHOUT_MERGES) else None


def _step(step: dict[str, Any]) -> str:
    """Return a rule in the form of `_NAMES`; "" for one that none of them has."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": uses_regex}:
            return "gpt-2" if uses_regex else "bytes"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}:
            return str(regex)
    return ""
