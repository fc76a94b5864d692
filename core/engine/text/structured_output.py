"""Structured output: the allowed next tokens under a grammar.

llguidance compiles and matches the grammars, with bounds on the cost of one token, because all
streams of a model wait for it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

MAX_DIGITS = 20
"""Of each part of a number: as many as the largest unsigned 64-bit integer has. Uncertain models
generate digits without end, and llguidance does not support that integer as a bound."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""About 10 ms for a grammar, and at most as much for a token."""


_DIGITS = b"0123456789"
_GO_ON = {b"", b".", b"e", b"E", *(bytes([digit]) for digit in _DIGITS)}


@dataclass(frozen=True)
class GrammarVocabulary:
    """A vocabulary prepared for llguidance."""

    tokenizer: LLTokenizer
    tokens: int
    """Rows of the model's embedding."""
    end_token_ids: tuple[int, ...]
    first_digits_V: NDArray[np.uint8]
    """The number of leading digits of each token."""
    continues_number_V: NDArray[np.bool_]
    """Whether a token can continue a number: it begins with a digit, a point or an exponent."""
    quote: int
    """The token of a quotation mark."""

    def digits_after(self, token: int, before: int) -> int:
        """Return the number of trailing digits of the text after a token."""
        own = self.tokenizer.decode_bytes([token])
        last = len(own) - len(own.rstrip(_DIGITS))
        return before + last if last == len(own) else last


class CompiledGrammar:
    """A grammar for one vocabulary; each answer has its own `GrammarMatcher`."""

    def __init__(
        self,
        lark: str,
        first: LLMatcher,
        vocabulary: GrammarVocabulary,
        *,
        bounds_numbers: bool = True,
    ) -> None:
        self.lark = lark
        """The grammar for another server, whose llguidance may be older."""
        self._first = first
        self._vocabulary = vocabulary
        self._bounds_numbers = bounds_numbers

    def start(self) -> "GrammarMatcher":
        """Return a matcher for a new answer."""
        first = self._first.deep_copy()
        return GrammarMatcher(first, self._vocabulary, bounds_numbers=self._bounds_numbers)


class GrammarMatcher:
    """Matches one answer against a grammar, token by token."""

    def __init__(
        self, matcher: LLMatcher, vocabulary: GrammarVocabulary, *, bounds_numbers: bool = True
    ) -> None:
        self._matcher = matcher
        self._bounds_numbers = bounds_numbers
        self._vocabulary = vocabulary
        self._end_token_ids = list(vocabulary.end_token_ids)
        self._stuck = False
        self._digits = 0

    @property
    def error(self) -> str:
        """Why no token can follow; empty while one can."""
        message: str = self._matcher.get_error()
        if not message and self._stuck:
            return "no token is allowed, but the output is incomplete"
        return message

    def allowed(self) -> NDArray[np.bool_]:
        """Return the allowed next tokens (V,); an end token only if the output is complete."""
        allowed_V = self._following()
        may_end = self._matcher.is_stopped() or self._matcher.is_accepting()
        if may_end and not self._matcher.is_error():
            allowed_V[self._end_token_ids] = True
        if not allowed_V.any():  # a token must be drawn; the caller checks `error`
            self._stuck = not any(map(self._is_allowed, self._end_token_ids))
            allowed_V[self._end_token_ids] = True
        return allowed_V

    def take(self, token: int) -> None:
        """Advance by an allowed token."""
        if token not in self._end_token_ids:
            self._matcher.consume_token(token)
            self._digits = self._vocabulary.digits_after(token, self._digits)

    def _following(self) -> NDArray[np.bool_]:
        """Return the allowed next tokens (V,), without end tokens."""
        allowed_V = np.zeros(self._vocabulary.tokens, dtype=bool)
        if self._matcher.is_stopped():
            return allowed_V
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V[:] = np.unpackbits(bits, count=len(allowed_V), bitorder="little")
        if np.count_nonzero(allowed_V) == 1:
            [token] = allowed_V.nonzero()[0].tolist()
            if self._vocabulary.tokenizer.is_special_token(token) and not self._is_allowed(token):
                allowed_V[token] = False
                allowed_V[self._required_tokens()] = True
        allowed_V[self._end_token_ids] = False
        if self._bounds_numbers:
            self._bound_a_number(allowed_V)
        return allowed_V

    def _bound_a_number(self, allowed_V: NDArray[np.bool_]) -> None:
        """Forbid tokens that would give a complete number too many digits.

        An allowed quotation mark means that the digits are part of a string, which is not limited.
        """
        vocabulary = self._vocabulary
        room = max(MAX_DIGITS - self._digits, 0)
        too_many_V = vocabulary.first_digits_V > room
        if not self._digits or not (allowed_V & too_many_V).any():
            return
        may_end = self._matcher.is_accepting() or (allowed_V & ~vocabulary.continues_number_V).any()
        if may_end and not allowed_V[vocabulary.quote]:
            allowed_V &= ~too_many_V

    def _is_allowed(self, token: int) -> bool:
        return not self._matcher.is_stopped() and self._matcher.validate_tokens([token]) == 1

    def _required_tokens(self) -> list[int]:
        """Return tokens that begin the literal text that the grammar requires next.

        If that text contains a special token, llguidance offers that token and then rejects it.
        """
        tokenizer = self._vocabulary.tokenizer
        text = self._matcher.compute_ff_bytes().decode("utf-8", errors="ignore")
        beginnings = [tokenizer.greedy_tokenize(text[:end]) for end in range(1, 33)]
        whole = {tokens[0] for tokens in beginnings if len(tokens) == 1}
        return sorted(whole | set(tokenizer.greedy_tokenize(text)[:1]))


def grammar_vocabulary(
    tokenizer: PreTrainedTokenizerFast, tokens: int, end_token_ids: Collection[int]
) -> GrammarVocabulary:
    """Prepare a vocabulary of `tokens` tokens for llguidance; takes up to a second."""
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
        continues_number_V=np.array([text[:1] in _GO_ON for text in texts]),
        quote=made.greedy_tokenize('"')[0],
    )
