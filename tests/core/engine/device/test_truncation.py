"""The kept tokens and their probabilities are those of transformers, in vLLM's order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.engine.device.truncation import kept_probabilities
from core.spec.generation import SamplingSpec

VOCABULARY = 60

options = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.1, 0.7, 1.0, 2.0])},
    optional={
        "top_k": st.integers(1, VOCABULARY + 5),
        "min_p": st.sampled_from([0.001, 0.05, 0.3, 1.0]),
        "top_p": st.sampled_from([0.01, 0.3, 0.9, 0.999]),
    },
)


def of_transformers(logits_1V: Tensor, spec: SamplingSpec) -> Tensor:
    """Return the probabilities (1, V) by transformers' own classes, in float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(spec.temperature)])
    if spec.min_p:
        warpers.append(MinPLogitsWarper(spec.min_p))
    if spec.top_k:
        warpers.append(TopKLogitsWarper(spec.top_k))
    if spec.top_p < 1:
        warpers.append(TopPLogitsWarper(spec.top_p))
    return warpers(None, logits_1V.double()).softmax(dim=-1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.lists(options, min_size=1, max_size=5))
def test_tokens_are_kept_as_by_transformers(seed, batch):
    noise = torch.Generator().manual_seed(seed)
    logits_BV = 3 * torch.randn(len(batch), VOCABULARY, generator=noise)
    specs = [SamplingSpec(seed=0, **each) for each in batch]
    found_BV = kept_probabilities(logits_BV, specs)
    found_BV = found_BV / found_BV.sum(dim=-1, keepdim=True)
    for row, spec in enumerate(specs):
        expected_V = of_transformers(logits_BV[row : row + 1], spec)[0]
        assert torch.equal(found_BV[row] > 0, expected_V > 0), spec
        assert torch.allclose(found_BV[row], expected_V, rtol=1e-9, atol=1e-15), spec


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), options, st.lists(options, min_size=1, max_size=4))
def test_a_row_does_not_depend_on_the_others(seed, own, others):
    noise = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(1 + len(others), VOCABULARY, generator=noise)
    specs = [SamplingSpec(seed=0, **each) for each in (own, *others)]
    alone_1V = kept_probabilities(logits_BV[:1], specs[:1])
    assert torch.equal(kept_probabilities(logits_BV, specs)[:1], alone_1V)


def test_min_p_comes_before_top_p():
    """0.5, 0.3, 0.2: without the last token, the first one has 0.625 of the rest."""
    logits_1V = torch.tensor([[0.5, 0.3, 0.2]]).log()
    kept_1V = kept_probabilities(logits_1V, [SamplingSpec(seed=0, min_p=0.5, top_p=0.6)])
    assert (kept_1V > 0).tolist() == [[True, False, False]]


def test_top_k_comes_before_top_p():
    logits_1V = torch.tensor([[0.4, 0.3, 0.3]]).log()
    logits_1V[0, 2] -= 1e-3
    kept_1V = kept_probabilities(logits_1V, [SamplingSpec(seed=0, top_k=2, top_p=0.55)])
    assert (kept_1V > 0).tolist() == [[True, False, False]]


def test_tokens_as_likely_as_the_last_one_are_kept():
    logits_1V = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    kept_1V = kept_probabilities(logits_1V, [SamplingSpec(seed=0, top_k=2)])
    assert (kept_1V > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("top_k", [1, 3])
def test_forbidden_tokens_do_not_count(top_k):
    logits_1V = torch.tensor([[float("-inf"), 1.0, float("-inf"), float("-inf")]])
    kept_1V = kept_probabilities(logits_1V, [SamplingSpec(seed=0, top_k=top_k, min_p=0.1)])
    assert (kept_1V > 0).tolist() == [[False, True, False, False]]
