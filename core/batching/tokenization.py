"""Tokenizes texts that begin a sequence, and texts that continue one.

SentencePiece adds a space before the first word of a text. A text that continues another must not
get this space, so it is tokenized after a line break whose tokens are then removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerFast

_GUARD = "\n"


@dataclass(frozen=True)
class _Behavior:
    """Properties of a tokenizer."""

    opening: tuple[int, ...]
    """The special tokens that it adds before a text."""
    guard: tuple[int, ...] | None
    """The tokens of a line break, if it adds a space before the first word; else None."""


_known: "WeakKeyDictionary[PreTrainedTokenizerFast, _Behavior]" = WeakKeyDictionary()


def opening_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Return the special tokens before a plain text, such as beginning-of-text."""
    return _behavior(tokenizer).opening


def plain_prompt(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the token ids of a plain text prompt, with special tokens before it only."""
    return [*opening_tokens(tokenizer), *encode(tokenizer, [text])[0]]


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts that begin a sequence, without adding special tokens.

    Control tokens in a text are parsed as such.
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def encode_continued(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts that continue another text; otherwise like `encode`."""
    guard = _behavior(tokenizer).guard
    if guard is None:
        return encode(tokenizer, texts)
    guarded = encode(tokenizer, [_GUARD + text for text in texts])
    found = []
    for text, ids in zip(texts, guarded, strict=True):
        if tuple(ids[: len(guard)]) == guard:
            found.append(ids[len(guard) :])
        else:  # leading white space merged with the line break
            found.append(encode(tokenizer, [text])[0])
    return found


def _behavior(tokenizer: PreTrainedTokenizerFast) -> _Behavior:
    if (behavior := _known.get(tokenizer)) is None:
        behavior = _known[tokenizer] = _observe(tokenizer)
    return behavior


def _observe(tokenizer: PreTrainedTokenizerFast) -> _Behavior:
    (alone,), (guard,), (guarded,) = (
        encode(tokenizer, [text]) for text in ("a", _GUARD, _GUARD + "a")
    )
    around: list[int] = tokenizer("a", verbose=False)["input_ids"]
    starts = range(len(around) - len(alone) + 1)
    start = next((at for at in starts if around[at : at + len(alone)] == alone), 0)
    continues = guarded[: len(guard)] == guard and guarded[len(guard) :] != alone
    return _Behavior(tuple(around[:start]), tuple(guard) if continues else None)
