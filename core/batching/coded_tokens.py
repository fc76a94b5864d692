"""Coded text: text in which each control token is one character that no other token can produce.

A template marks calls and reasoning with control tokens such as `<|channel|>`. A model may also
write the same characters with plain tokens, which is text and marks nothing. In coded text a
control token is one surrogate, which valid UTF-8 never contains, so the two differ.

Plain Python.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

_FIRST, _LAST = 0xDC00, 0xDFEF
"""Low surrogates; later ones are the placeholders of `core.batching.call_literals`."""

_CODES = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class CodedTokens:
    """The control tokens in a template's answers, by their text."""

    ids: Mapping[str, int]

    @staticmethod
    def found_in(texts: Iterable[str], special: Mapping[str, int]) -> "CodedTokens":
        """Return the special tokens of a vocabulary that occur in the texts."""
        whole = "\n".join(texts)
        present = sorted(token for token in special if token and token in whole)
        return CodedTokens({token: special[token] for token in present[: _LAST - _FIRST]})

    @cached_property
    def codes(self) -> dict[int, str]:
        """The character of each control token, by token id."""
        return {id_: chr(_FIRST + index) for index, id_ in enumerate(self.ids.values())}

    def coded(self, text: str) -> str:
        """Encode a rendered text: replace each control token by its character."""
        return self._pattern.sub(lambda match: self._code_of[match[0]], text)

    def decoded(self, coded: str) -> str:
        """Decode coded text: replace each character by the text of its control token."""
        return _CODES.sub(lambda match: self._text_of.get(match[0], ""), coded)

    def decoded_in_json(self, coded: str) -> str:
        """Decode the control tokens in the strings of coded JSON.

        Escapes other lone surrogates again, because UTF-8 cannot encode them.
        """
        return _SURROGATES.sub(
            lambda match: json.dumps(self._text_of.get(match[0], match[0]))[1:-1], coded
        )

    def parts(self, coded: str) -> list[str | int]:
        """Split coded text into texts and the ids of control tokens, in order."""
        id_of = {code: id_ for id_, code in self.codes.items()}
        pieces = re.split(f"({_CODES.pattern})", coded)
        return [id_of.get(piece, piece) for piece in pieces if piece]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _code_of(self) -> dict[str, str]:
        return {text: self.codes[id_] for text, id_ in self.ids.items()}

    @cached_property
    def _text_of(self) -> dict[str, str]:
        return {code: text for text, code in self._code_of.items()}


def without_codes(coded: str) -> str:
    """Return coded text without its control tokens."""
    return _CODES.sub("", coded)
