"""The results of a device step, and the tokens sampled from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from core.engine.policy.request import AnySequence


@dataclass(frozen=True)
class TokenScores:
    """Natural-log probabilities under the model's distribution (temperature 1, no truncation)."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """The k most likely tokens, most likely first."""


@dataclass(frozen=True)
class SampledToken:
    """The next token of a sequence, with scores if the request asked for them."""

    token_id: int
    scores: TokenScores | None


@dataclass(frozen=True)
class Written:
    """Logits (S, V) of the next token of each of these sequences."""

    sequences: Sequence[AnySequence]
    logits_SV: Tensor
    prompt_scores: Sequence[tuple[AnySequence, int, Sequence[TokenScores]]] = field(
        default_factory=list
    )
    """For sequences that score their prompt: the first position, and the scores."""


TextResult = tuple[float, ...] | bytes
"""The probability of each label, or a vector as little-endian 32-bit floats."""


@dataclass(frozen=True)
class TextResults:
    """The result of each of these texts."""

    sequences: Sequence[AnySequence]
    results: Sequence[TextResult]


Results = Written | TextResults
