"""Samples and scores the next tokens.

A sampled token depends only on the logits and on (seed, choice, position), not on the other rows
of the batch.
"""
# B rows of the batch, V vocabulary, K alternatives

from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

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


def apply_penalties(logits_BV: Tensor, sequences: Collection[SequenceState[Request]]) -> Tensor:
    """Return the logits with the bias and the penalties of each request.

    Penalties count generated tokens, not the prompt, like OpenAI's.
    """
    penalties = [_penalties(each.request.sampling, each.tokens) for each in sequences]
    if not any(penalties):
        return logits_BV
    logits_BV = logits_BV.clone()
    for row, of_row in enumerate(penalties):
        if of_row:
            tokens = torch.tensor(list(of_row), device=logits_BV.device)
            logits_BV[row, tokens] += torch.tensor(list(of_row.values())).to(logits_BV)
    return logits_BV


def apply_grammars(logits_BV: Tensor, sequences: Collection[SequenceState[Request]]) -> Tensor:
    """Return the logits with -inf for tokens that the grammar of an answer does not allow."""
    if all(sequence.matcher is None for sequence in sequences):
        return logits_BV
    logits_BV = logits_BV.clone()
    for row, sequence in enumerate(sequences):
        if sequence.matcher is not None:
            allowed_V = torch.from_numpy(sequence.matcher.allowed()).to(logits_BV.device)
            logits_BV[row].masked_fill_(~allowed_V, float("-inf"))
    return logits_BV


def _penalties(sampling: SamplingSpec, written: list[int]) -> dict[int, float]:
    """Return the addend to the logit of each token."""
    penalties = dict(sampling.logit_bias)
    if sampling.frequency_penalty or sampling.presence_penalty:
        for token, times in Counter(written).items():
            penalty = sampling.frequency_penalty * times + sampling.presence_penalty
            penalties[token] = penalties.get(token, 0.0) - penalty
    return penalties


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


def most_likely(logits_BV: Tensor) -> Tensor:
    """Return the most likely token of each row (B,), the first one of equals."""
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(dim=-1)
    # on a CPU, numpy's argmax over a vocabulary is six times as fast as torch's
    return torch.from_numpy(logits_BV.float().numpy().argmax(axis=-1))


def nucleus(logits_BV: Tensor, temperature_B1: Tensor, top_p_B1: Tensor) -> Tensor:
    """Return unnormalized probabilities (B, V, float64) of the nucleus, zero outside.

    The nucleus is the smallest set of most likely tokens whose total probability reaches top_p;
    it has at least one token. Source: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751.
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
