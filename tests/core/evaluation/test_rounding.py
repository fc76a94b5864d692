"""Arithmetic that is rounded otherwise at random lies as far off as other arithmetic does."""

import pytest
import torch
from torch import Tensor, nn

from core.evaluation.rounding import (
    FORMATS,
    PERTURBED_SHARE,
    POOL,
    Factors,
    perturbed_rounding,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def factors(dtype: torch.dtype, seed: int = 0, step: torch.dtype | None = None) -> Factors:
    return Factors(torch.device("cpu"), seed, dtype, step or dtype)


def octave(count: int) -> Tensor:
    """Numbers between 1 and 2 with evenly distributed logarithms, in fp64."""
    return torch.rand(count, generator=generator(), dtype=torch.float64).exp2()


@pytest.mark.parametrize("dtype", FORMATS)
def test_moved_values_are_one_or_two_steps_away(dtype: torch.dtype) -> None:
    value = octave(100_000).to(dtype)
    moved = value * factors(dtype, seed=1).take(value.shape)
    assert moved.dtype == dtype
    steps = (moved.double() - value.double()) / torch.finfo(dtype).eps
    assert set(steps[moved < 2].tolist()) <= {-2, -1, -0.5, 0, 1, 2}  # below 1 a step is half
    changed = steps != 0
    assert changed.double().mean().item() == pytest.approx(PERTURBED_SHARE, rel=0.05)
    assert (steps > 0)[changed].double().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("step", [torch.float32, torch.bfloat16])
def test_two_roundings_of_a_number_are_as_far_apart_as_moved_ones(step: torch.dtype) -> None:
    exact = octave(400_000)
    eps = torch.finfo(step).eps
    offset = torch.rand(400_000, generator=generator(1), dtype=torch.float64)
    rounded = (exact / eps).round() * eps
    otherwise = ((exact / eps + offset).round() - offset) * eps
    value = exact.float()
    moved = value * factors(torch.float32, seed=2, step=step).take(value.shape)
    apart = (rounded - otherwise).square().mean().item()
    assert (moved.double() - value).square().mean().item() == pytest.approx(apart, rel=0.05)


@pytest.mark.parametrize("dtype", FORMATS)
def test_zero_and_what_is_not_finite_stay(dtype: torch.dtype) -> None:
    value = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan], dtype=dtype).repeat(200)
    moved = value * factors(dtype).take(value.shape)
    assert torch.equal(moved.nan_to_num(7), value.nan_to_num(7))


def test_model_runs_as_before_outside_the_block_and_generators_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    x_BE = torch.randn(16, 8, generator=generator())
    before, state = model(x_BE), torch.get_rng_state()
    with perturbed_rounding(model, 1):
        once = model(x_BE)
    with perturbed_rounding(model, 1):
        again = model(x_BE)
    with perturbed_rounding(model, 2):
        other = model(x_BE)
    assert torch.equal(model(x_BE), before)
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert not torch.equal(once, before)
    torch.testing.assert_close(once, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_depend_on_seed_and_place_and_exist_for_any_number() -> None:
    drawn, other, size = factors(torch.float32), factors(torch.float32, 1), torch.Size([1000])
    first, second = drawn.take(size), drawn.take(size)
    assert torch.equal(factors(torch.float32).take(size), first)
    assert not torch.equal(first, second) and not torch.equal(first, other.take(size))
    eps = torch.finfo(torch.float32).eps
    assert set(first.tolist()) == {1 - eps, 1, 1 + eps}
    many = drawn.take(torch.Size([2, POOL]))
    assert torch.equal(many[0], many[1])
    assert (many[0] != 1).sum().item() == pytest.approx(POOL * PERTURBED_SHARE, rel=0.01)


def test_rows_of_an_output_larger_than_the_pool_differ() -> None:
    drawn = factors(torch.float32).take(torch.Size([POOL // 512 * 2, 1024]))
    apart = round(POOL / 1024)
    assert not torch.equal(drawn[0], drawn[apart]) and not torch.equal(drawn[0], drawn[apart + 1])
