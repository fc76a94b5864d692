"""Faults of other searches by halving that users reported, tried on ours."""

import math

import pytest

from core.spec.sweep import HalvingSpec
from core.sweeps.rungs import Contender, Decision, decide, planned_runs, rungs_of
from tests.core.sweeps.test_rungs import at_rung, of_eight, result


@pytest.mark.parametrize("place", [0, 1, 2])
def test_loss_that_is_no_number_never_wins(place: int) -> None:
    """hyperopt#662, autokeras#1758, keras-tuner#357: a first NaN stayed the best for ever."""
    losses = [3.0, 2.0]
    losses.insert(place, math.nan)
    decision = decide(at_rung(*losses), len(of_eight), of_eight, "loss")
    assert decision is not None
    assert decision.fallen == (place,) and losses[decision.ranking[0]] == 2.0


def test_each_share_has_as_many_trials_as_the_plan_says() -> None:
    """SMAC3#880: of nine, eleven had one ninth of the steps, and one instead of three a third."""
    halving = HalvingSpec(reduction=3, first_share=1 / 9, growth=3, finalists=1, last_share=None)
    rungs = rungs_of(9, halving)
    assert [(rung.trials, rung.keep) for rung in rungs] == [(9, 3), (3, 1)]
    assert [rung.share for rung in rungs] == pytest.approx([1 / 9, 1 / 3])
    assert planned_runs(9, rungs) == pytest.approx(1 + 3 * 2 / 9 + 2 / 3)
    losses = [float(number) for number in range(9)]
    first = decide(at_rung(*losses), 0, rungs, "loss")
    assert first is not None and (first.kept, first.next_rung) == (3, 1)


@pytest.mark.parametrize("growth", [1.05, 2.0, 16.0])
def test_no_rung_is_as_long_as_the_one_before(growth: float) -> None:
    """ray#39157: the second rung was at the step of the first, so no trial ever continued."""
    shares = [0.0, *(r.share for r in rungs_of(64, HalvingSpec(growth=growth))), 1.0]
    assert shares == sorted(set(shares))


def test_first_trial_is_compared_like_all_others() -> None:
    """optuna#3088: the first of each bracket was never compared, and went to its end."""
    decision = decide(at_rung(9.0, *[1.0] * 7), 0, of_eight, "loss")
    assert decision is not None and decision.ranking[-1] == 0 and decision.kept == 4


def test_trial_that_has_ended_waits_for_nobody() -> None:
    """ray#39157: a trial beyond the next rung hung."""
    ended = Contender(0, True, result(1.0, share=1.0))
    waiting = Contender(1, False, result(2.0))
    assert decide([ended, waiting], 1, of_eight, "loss") is None
    both = [ended, Contender(1, True, result(2.0))]
    assert decide(both, 1, of_eight, "loss") == Decision((0, 1), (), 2, next_rung=2)
