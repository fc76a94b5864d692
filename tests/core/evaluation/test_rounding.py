"""Arithmetic that is rounded otherwise at random lies as far off as other arithmetic does."""

import pytest
import torch
from torch import nn

from core.evaluation.rounding import POOL, Signs, perturbed, perturbed_rounding

FORMATS = [torch.float32, torch.bfloat16, torch.float16]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signs(seed: int = 0) -> Signs:
    return Signs(torch.device("cpu"), seed)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_sixth_of_the_values_moves_to_a_neighbor(dtype: torch.dtype) -> None:
    value = torch.randn(50_000, generator=generator()).to(dtype)
    moved = perturbed(value, signs(1), dtype)
    assert moved.dtype == dtype
    changed = moved != value
    assert changed.float().mean().item() == pytest.approx(1 / 6, abs=0.01)
    up = torch.nextafter(value.float(), torch.tensor(torch.inf))  # the sign of a step
    assert ((moved > value)[changed]).float().mean().item() == pytest.approx(0.5, abs=0.02)
    step = (moved.double() - value.double()).abs()[changed] / value.double().abs()[changed]
    eps = torch.finfo(dtype).eps
    assert step.max() <= eps and step.min() > 0.49 * eps
    assert (up > value.float()).all()


def test_steps_may_be_those_of_a_coarser_format() -> None:
    value = torch.randn(10_000, generator=generator())
    moved = perturbed(value, signs(1), torch.bfloat16)
    changed = moved != value
    step = ((moved - value).abs() / value.abs())[changed]
    assert step.max() <= torch.finfo(torch.bfloat16).eps * 1.001
    assert step.min() > torch.finfo(torch.bfloat16).eps / 2.01


def test_two_roundings_of_a_number_lie_as_far_apart_as_a_moved_one() -> None:
    exact = torch.rand(200_000, generator=generator(), dtype=torch.float64) + 1  # one exponent
    offset = torch.rand(200_000, generator=generator(1), dtype=torch.float64) * 1e-1
    step = torch.finfo(torch.bfloat16).eps
    rounded = exact.to(torch.bfloat16).double()
    otherwise = (((exact / step + offset * 10).round() - offset * 10) * step).double()
    by_chance = perturbed(exact.to(torch.bfloat16), signs(2), torch.bfloat16).double()
    apart = (rounded - otherwise).square().mean()
    assert (by_chance - rounded).square().mean() == pytest.approx(apart.item(), rel=0.1)


@pytest.mark.parametrize("dtype", FORMATS)
def test_zero_and_what_is_not_finite_stay(dtype: torch.dtype) -> None:
    value = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan], dtype=dtype).repeat(100)
    moved = perturbed(value, signs(), dtype)
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
    drawn, other, size = signs(), signs(1), torch.Size([1000])
    first, second = drawn.take(size), drawn.take(size)
    assert torch.equal(signs().take(size), first)
    assert not torch.equal(first, second) and not torch.equal(first, other.take(size))
    assert set(first.tolist()) == {-1, 0, 1}
    many = drawn.take(torch.Size([2, POOL]))
    assert torch.equal(many[0], many[1]) and many[0].count_nonzero() == pytest.approx(
        POOL / 6, rel=0.01
    )


def test_rows_of_an_output_larger_than_the_pool_differ() -> None:
    value = torch.ones(POOL // 512 * 2, 1024)
    moved = perturbed(value, signs(), torch.float32) != value
    apart = round(POOL / 1024)
    assert not torch.equal(moved[0], moved[apart]) and not torch.equal(moved[0], moved[apart + 1])
