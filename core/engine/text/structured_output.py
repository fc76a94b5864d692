"""Structured output: which tokens may come next under a grammar.

The grammars and their matching are those of llguidance, with bounds on what one token may cost: all
streams of a model wait for it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

MOST_DIGITS = 20
"""Of a number, in each of its parts: as many as the greatest integer of 64 bits without a sign has.
A model in doubt writes digits without end, and llguidance cannot count as far as that integer."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""Some 10 ms for a grammar, and as much at most for a token."""


_DIGITS = b"0123456789"
_GO_ON = {b"", b".", b"e", b"E", *(bytes([digit]) for digit in _DIGITS)}


@dataclass(frozen=True)
class GrammarVocabulary:
    """A vocabulary as llguidance needs it."""

    tokenizer: LLTokenizer
    tokens: int
    """Rows of the model's embedding."""
    end_token_ids: tuple[int, ...]
    first_digits_V: NDArray[np.uint8]
    """How many digits a token begins with."""
    goes_on_V: NDArray[np.bool_]
    """Whether a token may go on a number: it begins with a digit, a point or an exponent."""
    quote: int
    """The token of a quotation mark."""

    def digits_after(self, token: int, before: int) -> int:
        """Return how many digits in a row the text has at its end, after a token."""
        own = self.tokenizer.decode_bytes([token])
        last = len(own) - len(own.rstrip(_DIGITS))
        return before + last if last == len(own) else last


class CompiledGrammar:
    """A grammar for one vocabulary; each answer has a `GrammarMatcher` of its own."""

    def __init__(self, lark: str, first: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self.lark = lark
        """For another server, whose llguidance may be older."""
        self._first = first
        self._vocabulary = vocabulary

    def start(self) -> "GrammarMatcher":
        """Return a matcher at the beginning of an answer."""
        return GrammarMatcher(self._first.deep_copy(), self._vocabulary)


class GrammarMatcher:
    """Matches one answer against a grammar, token by token."""

    def __init__(self, matcher: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._end_token_ids = list(vocabulary.end_token_ids)
        self._stuck = False
        self._digits = 0

    @property
    def error(self) -> str:
        """Why no token can follow; empty as long as one can."""
        message: str = self._matcher.get_error()
        if not message and self._stuck:
            return "no token can follow, and the grammar is not complete"
        return message

    def allowed(self) -> NDArray[np.bool_]:
        """Return by token (V,) which may come next; an end only where the grammar is complete."""
        allowed_V = self._following()
        may_end = self._matcher.is_stopped() or self._matcher.is_accepting()
        if may_end and not self._matcher.is_error():
            allowed_V[self._end_token_ids] = True
        if not allowed_V.any():  # something has to be drawn: the caller looks at `error`
            self._stuck = not any(map(self._is_due, self._end_token_ids))
            allowed_V[self._end_token_ids] = True
        return allowed_V

    def take(self, token: int) -> None:
        """Advance by a token that was allowed."""
        if token not in self._end_token_ids:
            self._matcher.consume_token(token)
            self._digits = self._vocabulary.digits_after(token, self._digits)

    def _following(self) -> NDArray[np.bool_]:
        """Return by token (V,) which may come next, ends left out."""
        allowed_V = np.zeros(self._vocabulary.tokens, dtype=bool)
        if self._matcher.is_stopped():
            return allowed_V
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V[:] = np.unpackbits(bits, count=len(allowed_V), bitorder="little")
        if np.count_nonzero(allowed_V) == 1:
            [token] = allowed_V.nonzero()[0].tolist()
            if self._vocabulary.tokenizer.is_special_token(token) and not self._is_due(token):
                allowed_V[token] = False
                allowed_V[self._spelling()] = True
        allowed_V[self._end_token_ids] = False
        self._bound_a_number(allowed_V)
        return allowed_V

    def _bound_a_number(self, allowed_V: NDArray[np.bool_]) -> None:
        """Forbid the tokens that would give a number, which may end here, too many digits.

        Where digits stand in a text, a quotation mark may follow as soon as the text may end.
        """
        vocabulary = self._vocabulary
        room = max(MOST_DIGITS - self._digits, 0)
        too_many_V = vocabulary.first_digits_V > room
        if not self._digits or not (allowed_V & too_many_V).any():
            return
        may_end = self._matcher.is_accepting() or (allowed_V & ~vocabulary.goes_on_V).any()
        if may_end and not allowed_V[vocabulary.quote]:
            allowed_V &= ~too_many_V

    def _is_due(self, token: int) -> bool:
        return not self._matcher.is_stopped() and self._matcher.validate_tokens([token]) == 1

    def _spelling(self) -> list[int]:
        """Return the tokens that begin the text that the grammar prescribes next.

        Where that text spells a special token, llguidance offers the token, and refuses it.
        """
        tokenizer = self._vocabulary.tokenizer
        text = self._matcher.compute_ff_bytes().decode("utf-8", errors="ignore")
        beginnings = [tokenizer.greedy_tokenize(text[:end]) for end in range(1, 33)]
        whole = {tokens[0] for tokens in beginnings if len(tokens) == 1}
        return sorted(whole | set(tokenizer.greedy_tokenize(text)[:1]))


def grammar_vocabulary(
    tokenizer: PreTrainedTokenizerFast, tokens: int, end_token_ids: Collection[int]
) -> GrammarVocabulary:
    """Return a vocabulary of `tokens` tokens as llguidance needs it; takes up to a second."""
    ends = tuple(sorted(end_token_ids))
    made = llguidance.hf.from_tokenizer(tokenizer, tokens, list(ends))
    texts = [made.decode_bytes([token]) for token in range(tokens)]
    return GrammarVocabulary(
        made,
        tokens,
        ends,
        first_digits_V=np.array(
            [min(len(text) - len(text.lstrip(_DIGITS)), 255) for text in texts], dtype=np.uint8
        ),
        goes_on_V=np.array([text[:1] in _GO_ON for text in texts]),
        quote=made.greedy_tokenize('"')[0],
    )
