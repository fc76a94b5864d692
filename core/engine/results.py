"""What a step of the device gives back, and what is sampled from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from core.engine.policy.request import AnySequence


@dataclass(frozen=True)
class TokenScores:
    """Natural-log probabilities under the model's own distribution (temperature 1, no cut)."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """The k most likely tokens, most likely first."""


@dataclass(frozen=True)
class SampledToken:
    """The next token of a sequence; scores where a request asked for them."""

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
    """Of sequences that score their prompt: from which position on, and the scores."""


@dataclass(frozen=True)
class Scored:
    """Probabilities of the labels for each of these texts."""

    sequences: Sequence[AnySequence]
    scores: Sequence[tuple[float, ...]]


Results = Written | Scored
