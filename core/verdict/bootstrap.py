"""Confidence intervals of paired differences, by resampling the rows."""

import random
from collections.abc import Callable, Sequence

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_ROWS = 6
"""With fewer rows, not even a difference of the same sign in all of them is significant: its
probability by chance is 2 · 2⁻ⁿ, which is below 5 % from 6 rows on (sign test)."""
SEED = 20_241_203

Interval = tuple[float, float]


def mean_interval(values: Sequence[float], resamples: int = RESAMPLES) -> Interval | None:
    """Return the interval of the mean of paired differences; None for too few.

    The percentile bootstrap (Efron & Tibshirani 1993, chapter 13): rows are drawn with
    replacement, both models' scores of a row together. The same values give the same interval.
    """
    draw, count = random.Random(SEED).choices, len(values)
    return _percentiles(count, resamples, lambda: sum(draw(values, k=count)) / count)


def statistic_interval(
    rows: int, statistic: Callable[[Sequence[int]], float], resamples: int = RESAMPLES
) -> Interval | None:
    """Return the interval of a `statistic` of the indices of rows, which is no mean."""
    draw, indices = random.Random(SEED).choices, range(rows)
    return _percentiles(rows, resamples, lambda: statistic(draw(indices, k=rows)))


def _percentiles(rows: int, resamples: int, draw: Callable[[], float]) -> Interval | None:
    if rows < FEWEST_ROWS:
        return None
    found = sorted(draw() for _ in range(resamples))
    tail = (1 - CONFIDENCE) / 2
    return found[int(tail * resamples)], found[min(int((1 - tail) * resamples), resamples - 1)]
