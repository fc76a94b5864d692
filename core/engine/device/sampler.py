"""Samples and scores the next tokens.

A sampled token depends only on the logits and on (seed, choice, position), not on the other rows
of the batch.
"""
# B rows of the batch, V vocabulary, K alternatives

from collections.abc import Collection, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from core.engine.device.penalties import apply_grammars, apply_penalties
from core.engine.device.truncation import kept_probabilities
from core.engine.policy.request import Request, SequenceState
from core.engine.results import SampledToken, TokenScores
from core.spec.generation import SamplingSpec


def sample(logits_BV: Tensor, sequences: Collection[SequenceState[Request]]) -> list[SampledToken]:
    """Choose the next token of each sequence; row b of the logits belongs to sequence b.

    A sequence with a given answer takes the next token of it.

    Scores are computed only on request. They are the model's: bias and penalties change the choice
    of the token, but not its score.
    """
    tokens_B = choose_tokens(
        apply_grammars(apply_penalties(logits_BV, sequences), sequences),
        [sequence.request.sampling for sequence in sequences],
        [_draw(sequence) for sequence in sequences],
    )
    for row, sequence in enumerate(sequences):
        if (given := sequence.request.sampling.given_answer) is not None:
            tokens_B[row] = given[len(sequence.tokens)]
    scores = score_tokens(
        logits_BV,
        tokens_B,
        [sequence.request.sampling.top_logprobs for sequence in sequences],
    )
    return [
        SampledToken(token_id, each)
        for token_id, each in zip(tokens_B.tolist(), scores, strict=True)
    ]


def _draw(sequence: SequenceState[Request]) -> float:
    """Return the random number for the next token; arbitrary if none is drawn."""
    sampling = sequence.request.sampling
    if sampling.temperature == 0:
        return 0.0
    return uniform_draw(sampling.seed, sequence.index, position=len(sequence.tokens))


def uniform_draw(seed: int, choice: int, position: int) -> float:
    """Return a number in [0, 1), the same for the same arguments on every machine."""
    digest = blake2b(f"{seed}/{choice}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # the 53 bits of a double


def choose_tokens(
    logits_BV: Tensor, sampling: list[SamplingSpec], uniform_draws: list[float]
) -> Tensor:
    """Return token ids (B,): the most likely at temperature 0, otherwise by inverse CDF.

    The CDF is in the order of the vocabulary, not of the probabilities, so rounding that swaps
    two nearly equal tokens cannot change the draw.
    """
    chosen_B = most_likely(logits_BV)
    rows = [row for row, each in enumerate(sampling) if each.temperature > 0]
    if not rows:
        return chosen_B

    drawn = [sampling[row] for row in rows]
    probabilities_BV = kept_probabilities(logits_BV[rows], drawn)
    cumulative_BV = probabilities_BV.cumsum(dim=-1)
    draws_B1 = torch.tensor([[uniform_draws[row]] for row in rows], dtype=torch.float64)
    targets_B1 = draws_B1.to(logits_BV.device) * cumulative_BV[:, -1:]
    chosen_B[rows] = torch.searchsorted(cumulative_BV, targets_B1, right=True)[:, 0]
    return chosen_B


def most_likely(logits_BV: Tensor) -> Tensor:
    """Return the most likely token of each row (B,), the first one of equals."""
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(dim=-1)
    # on a CPU, numpy's argmax over a vocabulary is six times as fast as torch's
    return torch.from_numpy(logits_BV.float().numpy().argmax(axis=-1))


def score_tokens(
    logits_BV: Tensor, tokens_B: Tensor, top_logprobs: list[int | None]
) -> list[TokenScores | None]:
    """Return log-probabilities of the chosen and the k best tokens; None if not requested."""
    rows = [row for row, k in enumerate(top_logprobs) if k is not None]
    if not rows:
        return [None] * len(top_logprobs)
    wanted = [k for k in top_logprobs if k is not None]
    found = iter(scores_of(logits_BV[rows], tokens_B[rows], wanted))
    return [None if k is None else next(found) for k in top_logprobs]


def scores_of(
    logits_BV: Tensor, tokens_B: Tensor, top_logprobs: Sequence[int]
) -> list[TokenScores]:
    """Return log-probabilities of the given and the k best tokens of each row."""
    logprobs_BV = logits_BV.float().log_softmax(dim=-1)
    chosen_B = logprobs_BV.gather(-1, tokens_B[:, None])[:, 0].tolist()
    best_BK = logprobs_BV.topk(min(max(top_logprobs), logprobs_BV.shape[-1]), dim=-1)
    return [
        TokenScores(logprob, tuple(zip(ids_K[:k], values_K[:k], strict=True)))
        for k, logprob, ids_K, values_K in zip(
            top_logprobs, chosen_B, best_BK.indices.tolist(), best_BK.values.tolist(), strict=True
        )
    ]
