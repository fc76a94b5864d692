"""Answers of a given form: which tokens may come next.

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


@dataclass(frozen=True)
class GrammarVocabulary:
    """A vocabulary as llguidance needs it."""

    tokenizer: LLTokenizer
    tokens: int
    """Rows of the model's embedding."""
    end_token_ids: tuple[int, ...]


class AnswerForm:
    """A grammar for one vocabulary; every answer is held to it by a `Held` of its own."""

    def __init__(self, lark: str, first: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self.lark = lark
        """For another server, whose llguidance may be older."""
        self._first = first
        self._vocabulary = vocabulary

    def start(self) -> "Held":
        """Return what holds one answer to the form, from its first token on."""
        ends = list(self._vocabulary.end_token_ids)
        return Held(self._first.deep_copy(), ends, self._vocabulary.tokens)


class Held:
    """One answer that is held to a form."""

    def __init__(self, matcher: LLMatcher, end_token_ids: list[int], tokens: int) -> None:
        self._matcher = matcher
        self._end_token_ids = end_token_ids
        self._tokens = tokens

    @property
    def error(self) -> str:
        """Why the form cannot be followed any further; empty as long as it can."""
        message: str = self._matcher.get_error()
        return message

    def allowed(self) -> NDArray[np.bool_]:
        """Return by token (V,) which may come next; an end only where the form is complete."""
        if self._matcher.is_stopped():
            allowed_V = np.zeros(self._tokens, dtype=bool)
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            allowed_V = np.unpackbits(bits, count=self._tokens, bitorder="little").astype(bool)
        may_end = self._matcher.is_stopped() or self._matcher.is_accepting()
        allowed_V[self._end_token_ids] = may_end
        if not allowed_V.any():  # nothing follows: the caller looks at `error`
            allowed_V[self._end_token_ids] = True
        return allowed_V

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        if token not in self._end_token_ids:
            self._matcher.consume_token(token)


def grammar_vocabulary(
    tokenizer: PreTrainedTokenizerFast, tokens: int, end_token_ids: Collection[int]
) -> GrammarVocabulary:
    """Return a vocabulary of `tokens` tokens as llguidance needs it; takes up to a second."""
    ends = tuple(sorted(end_token_ids))
    made = llguidance.hf.from_tokenizer(tokenizer, tokens, list(ends))
    return GrammarVocabulary(made, tokens, ends)
