"""Intervals of differences contain the true difference as often as they say."""

import random

import pytest

from core.verdict.bootstrap import FEWEST_ROWS, mean_interval, statistic_interval

RUNS = 200


@pytest.mark.parametrize("draw_of", [random.gauss, random.uniform], ids=["gauss", "uniform"])
def test_interval_covers_the_true_mean_in_about_95_of_100_runs(draw_of) -> None:  # type: ignore[no-untyped-def]
    draw = random.Random(7)
    bounds = (0.3, 1.0) if draw_of is random.gauss else (-0.7, 1.3)
    method = draw.gauss if draw_of is random.gauss else draw.uniform
    covered = 0
    for _ in range(RUNS):
        interval = mean_interval([method(*bounds) for _ in range(30)], resamples=400)
        assert interval is not None
        covered += interval[0] <= 0.3 <= interval[1]
    # the standard deviation of the share is 1.5 %; the method itself lacks 1 to 2 % at 30 rows
    assert 0.89 <= covered / RUNS <= 0.985


def test_same_values_have_the_same_interval_and_few_have_none() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.5]
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values[: FEWEST_ROWS - 1]) is None
    assert mean_interval([]) is None


def test_difference_in_every_row_is_not_uncertain() -> None:
    assert mean_interval([1.0] * 6) == (1.0, 1.0)


def test_interval_narrows_with_the_number_of_rows() -> None:
    def width(rows: int) -> float:
        interval = mean_interval([float(index % 2) for index in range(rows)])
        assert interval is not None
        return interval[1] - interval[0]

    assert width(400) == pytest.approx(width(100) / 2, rel=0.15)


def test_statistic_of_indices_agrees_with_the_mean() -> None:
    values = [0.1, 0.9, 0.4, 0.3, 0.8, 0.2, 0.7]

    def mean(indices) -> float:  # type: ignore[no-untyped-def]
        return sum(values[index] for index in indices) / len(indices)

    assert statistic_interval(len(values), mean) == pytest.approx(mean_interval(values))
