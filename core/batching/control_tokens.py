"""Control tokens of a chat template, and protection against the same characters in messages.

A chat template writes control tokens such as `<|im_end|>`. The same characters in a message are
plain text: they must not end the turn, in a request or in a training row. Before rendering, each
occurrence in a message is replaced by a placeholder: a number between two Unicode noncharacters.
After rendering, placeholders are tokenized as plain text. The template never sees the original
characters, so it cannot act on them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any

from transformers import PreTrainedTokenizerFast

from core.batching.tokenization import encode, encode_continued

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_PLACEHOLDER = re.compile(rf"(?:{_OPEN}|\\ufdd0)(\d+)(?:{_CLOSE}|\\ufdd1)")
"""A placeholder, verbatim or escaped by a JSON writer that emits only ASCII."""


class ControlTokens:
    """Control tokens by their text. `added_ids` are all added tokens of the tokenizer.

    Keeps no reference to the tokenizer, which can thus be freed.
    """

    def __init__(self, ids: Mapping[str, int], added_ids: Iterable[int]) -> None:
        self.ids = dict(ids)
        self._token_texts = [*sorted(self.ids, key=len, reverse=True), _OPEN, _CLOSE]
        self._numbers = {text: number for number, text in enumerate(self._token_texts)}
        self._pattern = re.compile("|".join(map(re.escape, self._token_texts)))
        self._pieces = re.compile(f"({self._pattern.pattern})")
        self._added_ids = frozenset(added_ids)

    @classmethod
    def of_template(cls, tokenizer: PreTrainedTokenizerFast, template: str) -> "ControlTokens":
        """Return the control tokens of a tokenizer with a chat template.

        These are the special tokens, and added tokens that the template contains, such as
        `<tool_call>`. Other added tokens are ordinary vocabulary.
        """
        added = tokenizer.added_tokens_decoder
        control = {
            token.content: token_id
            for token_id, token in added.items()
            if token.content.strip() and (token.special or token.content in template)
        }
        return cls(control, added)

    @classmethod
    def of_ids(cls, tokenizer: PreTrainedTokenizerFast, ids: Collection[int]) -> "ControlTokens":
        """Return the added tokens with these ids, such as end-of-text tokens."""
        added = tokenizer.added_tokens_decoder
        return cls({added[each].content: each for each in ids if each in added}, added)

    def hide(self, value: Any) -> Any:
        """Replace control tokens in all strings and keys of a JSON value by placeholders."""
        if isinstance(value, str):
            return self._pattern.sub(self._placeholder, value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(each) for each in value]
        return value

    def show(self, text: str) -> str:
        """Replace placeholders in a text by the original characters."""
        return _PLACEHOLDER.sub(lambda found: self._token_text(found[1]), text)

    def encode(
        self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, continued: bool = False
    ) -> list[list[int]]:
        """Return the token ids of rendered texts; placeholders become plain text tokens.

        `continued` texts follow another text in the same sequence.
        """
        first = encode_continued if continued else encode
        pieces = [_PLACEHOLDER.split(text) for text in texts]
        heads = first(tokenizer, [piece[0] for piece in pieces])
        return [
            head if len(piece) == 1 else [*head, *self._rest(tokenizer, piece[1:])]
            for head, piece in zip(heads, pieces, strict=True)
        ]

    def common_end(self, alone: str, later: str) -> str:
        """Return the end of a turn: the common prefix of the texts after two answers.

        Excludes partial control tokens, and a control token that opens the next item in each, such
        as a message header.
        """
        shared = self.common(alone, later)
        rest = alone[len(shared) :].lstrip()
        if rest and not self.opening(rest):
            shared = shared.rstrip().removesuffix(self.ending(shared.rstrip()))
        return shared.rstrip()

    def common(self, one: str, other: str) -> str:
        """Return the common prefix of two texts, without a partial control token."""
        shared = ""
        for a, b in zip(self._pieces.split(one), self._pieces.split(other), strict=False):
            if a != b:
                return shared if a in self.ids or b in self.ids else shared + _common(a, b)
            shared += a
        return shared

    def from_last(self, text: str) -> str:
        """Return the text from its last control token on, or all of it if it has none."""
        pieces = self._pieces.split(text)
        return "".join(pieces[-2:]) if len(pieces) > 1 else text

    def to_first(self, text: str) -> str:
        """Return the text up to and including its first control token."""
        return "".join(self._pieces.split(text)[:2])

    def suffixes(self, text: str) -> Iterator[str]:
        """Yield the suffixes of a text that begin at a control token, the longest first."""
        for found in self._pattern.finditer(text):
            yield text[found.start() :]

    def ending(self, text: str) -> str:
        """Return the control token at the end of a text, or ""."""
        return next((token for token in self._token_texts if text.endswith(token)), "")

    def opening(self, text: str) -> str:
        """Return the control token at the start of a text, or ""."""
        return next((token for token in self._token_texts if text.startswith(token)), "")

    def _placeholder(self, found: re.Match[str]) -> str:
        return f"{_OPEN}{self._numbers[found[0]]}{_CLOSE}"

    def _token_text(self, number: str) -> str:
        index = int(number)
        return self._token_texts[index] if index < len(self._token_texts) else ""

    def _rest(self, tokenizer: PreTrainedTokenizerFast, pieces: Sequence[str]) -> list[int]:
        """Return the ids from the first placeholder on."""
        decoded = [self._plain(tokenizer, self._token_text(number)) for number in pieces[::2]]
        texts = encode_continued(tokenizer, pieces[1::2])
        return list(chain.from_iterable(chain.from_iterable(zip(decoded, texts, strict=True))))

    def _plain(self, tokenizer: PreTrainedTokenizerFast, token_text: str) -> list[int]:
        """Tokenize a control token's text as plain text, split so that no part is added."""
        for cut in range(1, len(token_text)):
            parts = encode_continued(tokenizer, [token_text[:cut], token_text[cut:]])
            if not self._added_ids.intersection(chain(*parts)):
                return [*parts[0], *parts[1]]
        letters = encode_continued(tokenizer, list(token_text))
        return [token for ids in letters for token in ids if token not in self._added_ids]


def _common(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in pairs)
