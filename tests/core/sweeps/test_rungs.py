"""Which trials continue after a rung."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.spec.search import MAX_TRIALS
from core.spec.sweep import HalvingSpec, Rung
from core.spec.trial import TrialResult
from core.sweeps.rungs import (
    Contender,
    Decision,
    decide,
    newest_with,
    planned_runs,
    rungs_of,
    share_of,
)

CLASSIC = HalvingSpec(first_share=0.125, growth=2.0, finalists=1, last_share=None)
of_eight = rungs_of(8, CLASSIC)

halvings = st.builds(
    HalvingSpec,
    reduction=st.integers(2, 16),
    first_share=st.floats(0.001, 0.5),
    last_share=st.none() | st.floats(0.501, 0.99),
    finalists=st.integers(1, 4),
)
counts = st.integers(2, MAX_TRIALS)


def result(loss: float | None, accuracy: float | None = 0.5, share: float = 0.125) -> TrialResult:
    return TrialResult(share=share, step=5, loss=loss, accuracy=accuracy)


def graded(*scores: float | None) -> list[TrialResult]:
    return [result(1.0).model_copy(update={"score": score}) for score in scores]


def at_rung(*losses: float | None) -> list[Contender]:
    return [Contender(number, True, result(loss)) for number, loss in enumerate(losses)]


def test_eight_trials_cost_two_runs_and_a_half() -> None:
    assert list(of_eight) == [
        Rung(share=0.125, trials=8, keep=4),
        Rung(share=0.25, trials=4, keep=2),
        Rung(share=0.5, trials=2, keep=1),
    ]
    assert planned_runs(8, of_eight) == 2.5
    assert [share_of(rung, of_eight) for rung in range(4)] == [0.125, 0.25, 0.5, 1.0]


def test_default_costs_at_most_2_7_runs() -> None:
    rungs = rungs_of(8, HalvingSpec())
    assert [(rung.share, rung.trials, rung.keep) for rung in rungs] == [
        (0.065, 8, 4),
        (0.0975, 4, 3),
        (0.33, 3, 2),
    ]
    assert planned_runs(8, rungs) == pytest.approx(2.6875)


@pytest.mark.parametrize(
    ("trials", "kept"),
    [(2, []), (3, [2]), (4, [3, 2]), (16, [8, 4, 3, 2]), (48, [24, 12, 6, 3, 2])],
)
def test_default_drops_the_last_loser_late(trials: int, kept: list[int]) -> None:
    rungs = rungs_of(trials, HalvingSpec())
    assert [rung.keep for rung in rungs] == kept
    assert all(rung.share == 0.33 for rung in rungs[-1:])


def test_first_rung_is_before_the_last() -> None:
    with pytest.raises(ValidationError, match=r"first_share \(0.5\) must be less than last_share"):
        HalvingSpec(first_share=0.5)


def test_without_halving_every_trial_is_trained_to_its_end() -> None:
    assert rungs_of(8, None) == ()
    assert planned_runs(8, ()) == 8
    assert decide(at_rung(2.0, 1.0, 3.0), 0, (), "loss") == Decision((1, 0, 2), (), 1, None)


@given(counts, halvings)
def test_rungs_grow_keep_someone_and_cost_less_than_the_grid(
    trials: int, halving: HalvingSpec
) -> None:
    rungs = rungs_of(trials, halving)
    left, share = trials, 0.0
    for rung in rungs:
        assert rung.trials == left and share < rung.share < 1
        assert 1 <= rung.keep < left
        left, share = rung.keep, rung.share
    assert left >= min(trials, halving.finalists)
    if rungs:
        assert planned_runs(trials, rungs) < trials


@given(counts, halvings, st.data())
def test_best_trial_of_constant_losses_wins_whoever_fails(
    trials: int, halving: HalvingSpec, data: st.DataObject
) -> None:
    """Each trial has the same loss everywhere, and may fail at any rung."""
    rungs = rungs_of(trials, halving)
    losses = data.draw(st.lists(st.floats(-5, 5), min_size=trials, max_size=trials))
    fails_at = data.draw(st.lists(st.integers(0, 20), min_size=trials, max_size=trials))
    left, rung, trained = list(range(trials)), 0, 0.0
    for _ in range(len(rungs) + 1):
        share = share_of(rung, rungs)
        trained += len(left) * (share - (share_of(rung - 1, rungs) if rung else 0.0))
        found = [
            Contender(n, True, None if fails_at[n] == rung else result(losses[n])) for n in left
        ]
        decision = decide(found, rung, rungs, "loss")
        assert decision is not None
        assert sorted((*decision.ranking, *decision.fallen)) == left
        assert list(decision.ranking) == sorted(decision.ranking, key=lambda n: (losses[n], n))
        assert decision.kept <= len(decision.ranking)
        left = sorted(decision.ranking[: decision.kept])
        if decision.next_rung is None:
            break
        assert decision.next_rung > rung
        rung = decision.next_rung
    assert decision.next_rung is None
    assert (decision.kept == 0) == (decision.ranking == ())
    if not any(number <= len(rungs) for number in fails_at):
        assert left == [min(range(trials), key=lambda n: (losses[n], n))]
        assert trained == pytest.approx(planned_runs(trials, rungs))


def test_nothing_is_decided_while_a_trial_trains() -> None:
    contenders = [*at_rung(1.0, 2.0), Contender(2, False, result(0.1))]
    assert decide(contenders, 0, of_eight, "loss") is None


def test_equal_trials_are_ranked_by_their_number() -> None:
    decision = decide(at_rung(*[1.0] * 8), 0, of_eight, "loss")
    assert decision == Decision(tuple(range(8)), (), 4, 1)


def test_finalists_are_trained_to_their_end() -> None:
    rungs = rungs_of(8, HalvingSpec(reduction=4, first_share=0.1, last_share=None))
    assert rungs == (Rung(share=0.1, trials=8, keep=2),)
    assert planned_runs(8, rungs) == pytest.approx(2.6)
    decision = decide(at_rung(*[1.0] * 8), 0, rungs, "loss")
    assert decision == Decision(tuple(range(8)), (), 2, next_rung=1)
    assert decide(at_rung(2.0, 1.0), 1, rungs, "loss") == Decision((1, 0), (), 1, None)


def test_rungs_are_left_out_once_only_the_finalists_are_left() -> None:
    rungs = rungs_of(8, HalvingSpec(first_share=0.125, growth=2.0, last_share=None))
    failed = [Contender(number, True) for number in range(2, 8)]
    decision = decide([*at_rung(3.0, 2.0), *failed], 0, rungs, "loss")
    assert len(rungs) == 2 and decision is not None
    assert (decision.kept, decision.next_rung) == (2, 2)


def test_higher_accuracy_is_better() -> None:
    contenders = [
        Contender(n, True, result(1.0, accuracy)) for n, accuracy in enumerate((0.2, 0.9))
    ]
    decision = decide(contenders, 2, of_eight, "accuracy")
    assert decision is not None and decision.ranking == (1, 0)


def test_failed_trials_lose_and_a_single_one_that_is_left_goes_to_the_end() -> None:
    failed = [Contender(number, True) for number in range(1, 8)]
    decision = decide([*at_rung(3.0), *failed], 0, of_eight, "loss")
    assert decision == Decision((0,), tuple(range(1, 8)), 1, next_rung=len(of_eight))


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_sweep_ends_without_a_winner_if_no_trial_has_a_loss(loss: float | None) -> None:
    assert decide(at_rung(loss, loss), 0, of_eight, "loss") == Decision((), (0, 1), 0, None)


def test_highest_mean_score_of_a_grader_is_the_best() -> None:
    contenders = [Contender(n, True, each) for n, each in enumerate(graded(0.2, 0.9, None, 0.5))]
    assert decide(contenders, 0, of_eight, "exact") == Decision((1, 3, 0), (2,), 3, 1)


def test_score_of_the_rung_before_counts_if_the_newest_is_missing() -> None:
    first, second, third = graded(0.2, 0.9, None)
    assert newest_with("exact", [first, second, third]) == second
    assert newest_with("exact", [third]) is None
    assert newest_with("loss", [first, third]) == third
