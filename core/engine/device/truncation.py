"""The tokens that may be drawn, with their probabilities.

In the order of vLLM: temperature, min_p, top_k, top_p. Each step sees only what the one before it
kept. transformers applies min_p last, which differs only together with top_p.
"""
# B rows of the batch, R those with a top_k, K the largest of these, V vocabulary

from collections.abc import Sequence

import torch
from torch import Tensor

from core.spec.generation import SamplingSpec


def kept_probabilities(logits_BV: Tensor, sampling: Sequence[SamplingSpec]) -> Tensor:
    """Return unnormalized probabilities (B, V, float64), zero for tokens that are not drawn.

    Temperatures are positive. The most likely token is always kept.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    logits_BV = logits_BV.double()
    logits_BV = logits_BV - logits_BV.max(dim=-1, keepdim=True).values  # safe at tiny temperatures
    temperature_B1 = column([each.temperature for each in sampling])
    probabilities_BV = (logits_BV / temperature_B1).softmax(dim=-1)
    if any(each.min_p for each in sampling):
        min_p_B1 = column([each.min_p for each in sampling])
        probabilities_BV = _likely_enough(probabilities_BV, min_p_B1)
    if any(each.top_k for each in sampling):
        probabilities_BV = _most_likely(probabilities_BV, [each.top_k for each in sampling])
    if any(each.top_p < 1 for each in sampling):
        probabilities_BV = _nucleus(probabilities_BV, column([each.top_p for each in sampling]))
    return probabilities_BV


def _likely_enough(probabilities_BV: Tensor, min_p_B1: Tensor) -> Tensor:
    """Keep the tokens with at least min_p times the largest probability.

    Source: Nguyen et al. 2024, https://arxiv.org/abs/2407.01082.
    """
    largest_B1 = probabilities_BV.max(dim=-1, keepdim=True).values
    return probabilities_BV * (probabilities_BV >= min_p_B1 * largest_B1)


def _most_likely(probabilities_BV: Tensor, top_k: Sequence[int]) -> Tensor:
    """Keep the k most likely tokens, and those as likely as the last of them; 0 keeps all."""
    limited = [row for row, k in enumerate(top_k) if 0 < k < probabilities_BV.shape[-1]]
    if not limited:
        return probabilities_BV
    least_B1 = torch.zeros_like(probabilities_BV[:, :1])
    largest_RK = probabilities_BV[limited].topk(max(top_k[row] for row in limited)).values
    last_R1 = torch.tensor([[top_k[row] - 1] for row in limited], device=largest_RK.device)
    least_B1[limited] = largest_RK.gather(-1, last_R1)
    return probabilities_BV * (probabilities_BV >= least_B1)


def _nucleus(probabilities_BV: Tensor, top_p_B1: Tensor) -> Tensor:
    """Keep the smallest set of most likely tokens whose share of the total reaches top_p.

    It has at least one token. Source: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751.
    """
    sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    cumulative_BV = sorted_BV.cumsum(dim=-1)
    enough_B1 = top_p_B1 * cumulative_BV[:, -1:]
    is_kept_BV = (cumulative_BV - sorted_BV < enough_B1) | (top_p_B1 >= 1)
    is_kept_BV[:, 0] = True
    return probabilities_BV * torch.zeros_like(is_kept_BV).scatter(-1, order_BV, is_kept_BV)
