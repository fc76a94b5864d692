"""Draws follow the softmax, depend on seed, choice and position alone, and scores are raw."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.engine.device.sampler import choose_tokens, sample, uniform_draw
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec

DRAWS = 20_000


def make_sequence(choice: int = 0, position: int = 0, **sampling) -> SequenceState:
    spec = SamplingSpec(**{"seed": 7} | sampling)
    model = ModelKey(BaseModelSpec(id="x", source="/x"))
    request = Request("r", model, (1,), spec, 100, frozenset())
    return SequenceState(request, choice, tokens=[0] * position)


def frequencies(logits_V: torch.Tensor, **sampling) -> torch.Tensor:
    """Return how often each token is drawn at consecutive positions of one sequence."""
    spec = SamplingSpec(seed=11, **sampling)
    draws = [uniform_draw(spec.seed, 0, position) for position in range(DRAWS)]
    chosen = choose_tokens(logits_V.expand(DRAWS, -1), [spec] * DRAWS, draws)
    return torch.bincount(chosen, minlength=len(logits_V)).double() / DRAWS


def assert_distributed(found_V: torch.Tensor, expected_V: torch.Tensor) -> None:
    """Every frequency is within five standard deviations; what has no probability never comes."""
    deviation_V = (expected_V * (1 - expected_V) / DRAWS).sqrt()
    assert bool(((found_V - expected_V).abs() <= 5 * deviation_V).all()), (found_V, expected_V)


LOGITS_V = torch.tensor([2.0, -1.0, 0.5, 1.5, -3.0, 0.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_a_temperature(temperature: float):
    expected_V = (LOGITS_V.double() / temperature).softmax(-1)
    assert_distributed(frequencies(LOGITS_V, temperature=temperature), expected_V)


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, [0]), (0.5, [0, 3]), (0.9, [0, 3, 2])])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[int]):
    expected_V = torch.zeros_like(LOGITS_V, dtype=torch.float64)
    expected_V[kept] = LOGITS_V.double()[kept].softmax(-1)
    assert_distributed(frequencies(LOGITS_V, top_p=top_p), expected_V)


def test_temperature_zero_and_a_tiny_one_take_the_most_likely():
    specs = [SamplingSpec(seed=0, temperature=0), SamplingSpec(seed=0, temperature=1e-300)]
    logits_BV = (1e4 * LOGITS_V).expand(2, -1)
    assert choose_tokens(logits_BV, specs, [0.9999, 0.9999]).tolist() == [0, 0]


@given(st.integers(0, 2**63 - 1), st.integers(0, 127), st.integers(0, 10**6), st.integers(0, 10**6))
def test_uniform_draws_are_in_range_and_differ_by_position(seed, choice, position, other):
    draw = uniform_draw(seed, choice, position)
    assert 0 <= draw < 1
    assert (draw == uniform_draw(seed, choice, other)) == (position == other)


def test_uniform_draws_never_change_between_versions():
    assert uniform_draw(0, 0, 0) == 0.08234954794796834
    assert uniform_draw(2**63 - 1, 127, 4096) == 0.060254788299197726


@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_sequence_draws_the_same_in_any_company(order: list[int], size: int):
    logits_BV = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    sequences = [
        make_sequence(choice=row % 3, position=row, temperature=temperature, top_p=top_p, seed=row)
        for row, (temperature, top_p) in enumerate(
            [(0, 1), (1, 1), (0.7, 0.9), (2, 0.5), (1, 0.1), (1.3, 1)]
        )
    ]
    alone = [sample(logits_BV[row : row + 1], [sequences[row]])[0] for row in range(6)]
    company = order[:size]
    together = sample(logits_BV[company], [sequences[row] for row in company])
    assert together == [alone[row] for row in company]


def test_scores_are_log_softmax_of_the_raw_logits_whatever_the_sampling():
    logits_BV = torch.randn(3, 40, generator=torch.Generator().manual_seed(5))
    sequences = [
        make_sequence(temperature=0.3, top_p=0.2, top_logprobs=3),
        make_sequence(temperature=1.5),
        make_sequence(temperature=2, top_logprobs=0),
    ]
    sampled = sample(logits_BV, sequences)
    expected_BV = logits_BV.log_softmax(-1)
    assert sampled[1].scores is None
    for row, k in ((0, 3), (2, 0)):
        scores = sampled[row].scores
        assert scores.logprob == pytest.approx(expected_BV[row, sampled[row].token_id].item())
        best = expected_BV[row].topk(k)
        assert [token for token, _ in scores.top] == best.indices.tolist()
        assert [logprob for _, logprob in scores.top] == pytest.approx(best.values.tolist())


def test_bf16_logits_are_scored_in_fp32():
    logits_BV = torch.randn(1, 40, generator=torch.Generator().manual_seed(5)).bfloat16()
    sampled = sample(logits_BV, [make_sequence(temperature=0, top_logprobs=1)])[0]
    expected = logits_BV.float().log_softmax(-1).max().item()
    assert sampled.scores.logprob == pytest.approx(expected, abs=1e-6)


def test_more_alternatives_than_the_vocabulary_has_are_all_of_it():
    sampled = sample(torch.zeros(1, 4), [make_sequence(top_logprobs=20)])[0]
    assert len(sampled.scores.top) == 4


def test_bias_and_penalties_change_what_is_chosen_and_not_how_likely_it_was():
    plain = make_sequence(temperature=0, top_logprobs=0)
    shifting = make_sequence(
        temperature=0,
        top_logprobs=0,
        logit_bias={5: 3.5},
        frequency_penalty=0.5,
        presence_penalty=0.25,
    )
    chosen = []
    for _ in range(5):
        first, second = sample(torch.stack([LOGITS_V, LOGITS_V]), [plain, shifting])
        assert first.token_id == 0
        assert second.scores.logprob == pytest.approx(
            LOGITS_V.log_softmax(-1)[second.token_id].item()
        )
        shifting.write(second.token_id)
        chosen.append(second.token_id)
    # 5 stands at 3.5, then 2.75, 2.25, 1.75; 0 at 2.0, then 1.25; 3 at 1.5
    assert chosen == [5, 5, 5, 0, 5]


def test_a_ban_is_a_ban_and_other_rows_are_untouched():
    banned = make_sequence(temperature=1, logit_bias={0: -100, 3: -100})
    logits_BV = LOGITS_V.expand(2, -1).clone()
    for position in range(200):
        banned.tokens[:] = [1] * position
        assert sample(logits_BV, [banned, make_sequence()])[0].token_id not in (0, 3)
    assert torch.equal(logits_BV, LOGITS_V.expand(2, -1))
