"""Text as token ids: a text that begins a sequence, and one that continues it.

SentencePiece writes a space before the first word of a text. A text that continues another one
must not get it, so it is tokenised after a line break whose tokens are then removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerFast

_GUARD = "\n"


@dataclass(frozen=True)
class _Habits:
    """What a tokenizer does to every text."""

    opening: tuple[int, ...]
    """The special tokens that it puts before a text."""
    guard: tuple[int, ...] | None
    """The tokens of a line break, if the first word of a text gets a space; else None."""


_known: "WeakKeyDictionary[PreTrainedTokenizerFast, _Habits]" = WeakKeyDictionary()


def opening_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Return the special tokens that open a plain text, such as the beginning of text."""
    return _habits(tokenizer).opening


def plain_prompt(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return a plain text that the model continues: opened by special tokens, not closed."""
    return [*opening_tokens(tokenizer), *encode(tokenizer, [text])[0]]


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts that begin a sequence, without special tokens around them.

    Control tokens that are spelled in a text are parsed.
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
    guard = _habits(tokenizer).guard
    if guard is None:
        return encode(tokenizer, texts)
    guarded = encode(tokenizer, [_GUARD + text for text in texts])
    found = []
    for text, ids in zip(texts, guarded, strict=True):
        if tuple(ids[: len(guard)]) == guard:
            found.append(ids[len(guard) :])
        else:  # the text begins with white space that joins the line break
            found.append(encode(tokenizer, [text])[0])
    return found


def _habits(tokenizer: PreTrainedTokenizerFast) -> _Habits:
    if (habits := _known.get(tokenizer)) is None:
        habits = _known[tokenizer] = _observe(tokenizer)
    return habits


def _observe(tokenizer: PreTrainedTokenizerFast) -> _Habits:
    (alone,), (guard,), (guarded,) = (
        encode(tokenizer, [text]) for text in ("a", _GUARD, _GUARD + "a")
    )
    around: list[int] = tokenizer("a", verbose=False)["input_ids"]
    starts = range(len(around) - len(alone) + 1)
    start = next((at for at in starts if around[at : at + len(alone)] == alone), 0)
    continues = guarded[: len(guard)] == guard and guarded[len(guard) :] != alone
    return _Habits(tuple(around[:start]), tuple(guard) if continues else None)
