"""The rule behind a learning rate of "auto"."""

import itertools

import pytest
from pydantic import TypeAdapter

from core.catalog.learning_rate import base_learning_rate, settle
from core.errors import InvalidRequest
from core.spec.members import members, types_of
from core.spec.objective import ClassificationSpec, DpoSpec, PretrainingSpec, SupervisedSpec
from core.spec.strategy import BottleneckSpec, FullSpec, LoraSpec, QloraSpec, StrategySpec

DEMONSTRATIONS = SupervisedSpec()
LONG = 2000
STRATEGIES = TypeAdapter(StrategySpec)


@pytest.mark.parametrize("hidden_size", [2048, 4096, 8192])  # Llamas of 1B, 8B and 70B
def test_rates_of_large_bases_are_those_of_the_literature(hidden_size: int) -> None:
    lora = base_learning_rate(LoraSpec(), DEMONSTRATIONS, hidden_size, LONG)
    assert 1e-4 <= lora <= 5e-4
    assert base_learning_rate(FullSpec(), DEMONSTRATIONS, hidden_size, LONG) == pytest.approx(
        lora / 10, rel=0.01
    )
    assert 5e-6 <= base_learning_rate(LoraSpec(), DpoSpec(), hidden_size, LONG) <= 5e-5


def test_a_narrow_base_takes_several_times_the_rate_of_a_wide_one() -> None:
    narrow = base_learning_rate(LoraSpec(), DEMONSTRATIONS, 256, LONG)
    wide = base_learning_rate(LoraSpec(), DEMONSTRATIONS, 4096, LONG)
    assert 5 < narrow / wide < 16


def test_a_short_run_takes_a_higher_rate_and_the_rule_has_no_jump() -> None:
    rates = [base_learning_rate(LoraSpec(), DEMONSTRATIONS, 2048, steps) for steps in range(1, 900)]
    assert rates == sorted(rates, reverse=True)
    assert 1.2 < rates[0] / rates[-1] < 3
    assert all(after > 0.95 * before for before, after in itertools.pairwise(rates))


def test_rank_changes_nothing_and_what_scales_the_update_does() -> None:
    def rate(**options: object) -> float:
        return base_learning_rate(LoraSpec(**options), DEMONSTRATIONS, 2048, LONG)  # type: ignore[arg-type]

    assert rate(rank=64) == rate() == rate(use_dora=True)
    assert rate(alpha=8) == pytest.approx(4 * rate(), rel=0.01)
    # at rank 16 the scale alpha / √rank is four times alpha / rank
    assert rate(use_rslora=True) == pytest.approx(rate() / 4, rel=0.01)
    assert base_learning_rate(QloraSpec(), DEMONSTRATIONS, 2048, LONG) == rate()


def test_a_narrower_bottleneck_takes_a_higher_rate() -> None:
    narrow, wide = (
        base_learning_rate(BottleneckSpec(reduction_factor=factor), DEMONSTRATIONS, 2048, LONG)
        for factor in (32, 16)
    )
    assert narrow == pytest.approx(2 * wide, rel=0.01)


@pytest.mark.parametrize("kind", types_of(StrategySpec))
@pytest.mark.parametrize("hidden_size", [64, 256, 4096, 16384])
@pytest.mark.parametrize("steps", [1, 75, 10_000])
@pytest.mark.parametrize(
    "objective",
    [DEMONSTRATIONS, PretrainingSpec(), DpoSpec(), ClassificationSpec(labels=("a", "b"))],
)
def test_every_combination_has_a_rate(kind, hidden_size, steps, objective) -> None:  # type: ignore[no-untyped-def]
    strategy = STRATEGIES.validate_python({"type": kind})
    assert type(strategy) in members(StrategySpec)
    assert 1e-7 < base_learning_rate(strategy, objective, hidden_size, steps) <= 0.5


def test_a_classifiers_head_gets_no_rate_of_virtual_tokens() -> None:
    labelled = ClassificationSpec(labels=("a", "b"))
    lora, prompt, full = (
        base_learning_rate(STRATEGIES.validate_python({"type": kind}), labelled, 384, LONG)
        for kind in ("lora", "prompt", "full")
    )
    assert prompt == lora
    assert full < lora


def test_preferences_take_less_the_longer_they_pull() -> None:
    def share(steps: int) -> float:
        own, other = (
            base_learning_rate(LoraSpec(), objective, 2048, steps)
            for objective in (DpoSpec(), DEMONSTRATIONS)
        )
        return own / other

    assert share(8) == share(16) == 1
    assert share(160) == pytest.approx(0.1, rel=0.01)
    assert share(320) == share(100_000) == pytest.approx(0.05, rel=0.01)


def test_extreme_options_leave_a_rate_within_bounds() -> None:
    assert base_learning_rate(LoraSpec(alpha=1e-3), DEMONSTRATIONS, 64, 1) == 1


def test_a_multiplier_multiplies_and_a_rate_that_is_given_stands() -> None:
    assert settle("auto", "auto", 2e-4).peak == 2e-4
    assert settle("auto", 0.1, 2e-4).peak == pytest.approx(2e-5)
    given = settle(1e-3, "auto", 2e-4)
    assert (given.peak, given.multiplier) == (1e-3, 5.0)


def test_a_multiplier_that_is_too_high_says_how_high_it_may_be() -> None:
    with pytest.raises(InvalidRequest, match="Use a multiplier of at most 5e\\+03") as refused:
        settle("auto", 5001, 2e-4)
    assert refused.value.param == "learning_rate_multiplier"
