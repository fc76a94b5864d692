"""Which token comes next, and how likely it was.

The draw of a token depends on the logits and on (seed, choice, position) alone, so the
company in the batch cannot change it.
"""
# B rows of the batch, V vocabulary, K alternatives

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from core.engine.request import Request, Sequence
from core.spec.generation import SamplingSpec


@dataclass(frozen=True)
class TokenScores:
    """Natural-log probabilities under the model's own distribution (temperature 1, no cut)."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """The k most likely tokens, most likely first."""


@dataclass(frozen=True)
class SampledToken:
    token_id: int
    scores: TokenScores | None


def sample(logits_BV: Tensor, sequences: list[Sequence[Request]]) -> list[SampledToken]:
    """Choose the next token of each sequence; row b of the logits belongs to sequence b.

    Scores are computed only for the requests that ask for them.
    """
    tokens_B = choose_tokens(
        logits_BV,
        [sequence.request.sampling for sequence in sequences],
        [
            uniform_draw(
                sequence.request.sampling.seed, sequence.index, position=len(sequence.tokens)
            )
            for sequence in sequences
        ],
    )
    scores = score_tokens(
        logits_BV,
        tokens_B,
        [sequence.request.sampling.top_logprobs for sequence in sequences],
    )
    return [
        SampledToken(token_id, each)
        for token_id, each in zip(tokens_B.tolist(), scores, strict=True)
    ]


def uniform_draw(seed: int, choice: int, position: int) -> float:
    """Return a number in [0, 1) that is a fixed function of its arguments on every machine."""
    digest = blake2b(f"{seed}/{choice}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: all that a double holds


def choose_tokens(
    logits_BV: Tensor, sampling: list[SamplingSpec], uniform_draws: list[float]
) -> Tensor:
    """Return token ids (B,): the most likely at temperature 0, else by inverse CDF.

    The CDF runs in the order of the vocabulary and not of the probabilities: rounding that
    swaps two nearly equal tokens then cannot change the draw.
    """
    chosen_B = logits_BV.argmax(dim=-1)
    rows = [row for row, each in enumerate(sampling) if each.temperature > 0]
    if not rows:
        return chosen_B

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    probabilities_BV = nucleus(
        logits_BV[rows],
        temperature_B1=column([sampling[row].temperature for row in rows]),
        top_p_B1=column([sampling[row].top_p for row in rows]),
    )
    cumulative_BV = probabilities_BV.cumsum(dim=-1)
    targets_B1 = column([uniform_draws[row] for row in rows]) * cumulative_BV[:, -1:]
    chosen_B[rows] = torch.searchsorted(cumulative_BV, targets_B1, right=True)[:, 0]
    return chosen_B


def nucleus(logits_BV: Tensor, temperature_B1: Tensor, top_p_B1: Tensor) -> Tensor:
    """Return unnormalised probabilities (B, V, float64) of the nucleus, zero outside.

    The nucleus is the smallest set of most likely tokens whose probability reaches top_p;
    it holds at least one. Source: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751.
    """
    logits_BV = logits_BV.double()
    logits_BV = logits_BV - logits_BV.max(dim=-1, keepdim=True).values  # safe at tiny temperatures
    probabilities_BV = (logits_BV / temperature_B1).softmax(dim=-1)
    if bool((top_p_B1 >= 1).all()):
        return probabilities_BV
    sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    more_likely_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    is_kept_BV = (more_likely_BV < top_p_B1) | (top_p_B1 >= 1)
    is_kept_BV[:, 0] = True
    return probabilities_BV * torch.zeros_like(is_kept_BV).scatter(-1, order_BV, is_kept_BV)


def score_tokens(
    logits_BV: Tensor, tokens_B: Tensor, top_logprobs: list[int | None]
) -> list[TokenScores | None]:
    """Return log-probabilities of the chosen and the k best tokens, None where not asked for."""
    scores: list[TokenScores | None] = [None] * len(top_logprobs)
    rows = [row for row, k in enumerate(top_logprobs) if k is not None]
    if not rows:
        return scores
    logprobs_BV = logits_BV[rows].float().log_softmax(dim=-1)
    chosen_B = logprobs_BV.gather(-1, tokens_B[rows, None])[:, 0].tolist()
    most = min(max(k or 0 for k in top_logprobs), logprobs_BV.shape[-1])
    best_BK = logprobs_BV.topk(most, dim=-1)
    for row, logprob, ids_K, values_K in zip(
        rows, chosen_B, best_BK.indices.tolist(), best_BK.values.tolist(), strict=True
    ):
        k = top_logprobs[row] or 0
        top = tuple(zip(ids_K[:k], values_K[:k], strict=True))
        scores[row] = TokenScores(logprob, top)
    return scores
