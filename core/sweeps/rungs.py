"""Which trials train until which rung, and which continue from it: plain numbers, no clock, no I/O.

All trials of a rung are compared once each has reached it or has ended; `core.sweeps.advance` then
carries out the decision.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.spec.sweep import FIGURES, HalvingSpec, Metric, Rung
from core.spec.trial import WHOLE_RUN, TrialResult


def rungs_of(trials: int, halving: HalvingSpec | None) -> tuple[Rung, ...]:
    """Return the rungs before the end of the run; none if every trial is trained to its end.

    There are no more rungs once the finalists are left. Without `last_share`, more of them may be
    left at the end.
    """
    if halving is None:
        return ()
    finalists, last_share = halving.finalists, halving.last_share
    least, until = (finalists, WHOLE_RUN) if last_share is None else (finalists + 1, last_share)
    rungs: list[Rung] = []
    left, share = trials, halving.first_share
    while left > least and share < until:
        keep = max(least, math.ceil(left / halving.reduction))
        rungs.append(Rung(share=share, trials=left, keep=keep))
        left, share = keep, halving.first_share * halving.growth ** len(rungs)
    if last_share is not None and left > finalists:
        rungs.append(Rung(share=last_share, trials=left, keep=finalists))
    return tuple(rungs)


def planned_runs(trials: int, rungs: Sequence[Rung]) -> float:
    """Return the cost of a sweep, in complete runs, if no trial fails."""
    left, done, cost = trials, 0.0, 0.0
    for rung in rungs:
        cost += left * (rung.share - done)
        left, done = rung.keep, rung.share
    return cost + left * (WHOLE_RUN - done)


def share_of(rung: int, rungs: Sequence[Rung]) -> float:
    """Return the share of the run at which `rung` ends; the one after the last is the end."""
    return rungs[rung].share if rung < len(rungs) else WHOLE_RUN


def value_of(result: TrialResult, metric: Metric) -> float | None:
    """Return what `metric` is in a result; None if it was not measured."""
    if metric in FIGURES:
        return result.loss if metric == "loss" else result.accuracy
    return result.score


def newest_with(metric: Metric, results: Sequence[TrialResult]) -> TrialResult | None:
    """Return the newest result that has the metric; None without one.

    Answers at the end of a run may lack a score that those at the rung before have.
    """
    having = (result for result in reversed(results) if value_of(result, metric) is not None)
    return next(having, None)


@dataclass(frozen=True)
class Contender:
    """A trial that is still in the sweep.

    `is_done`: it has reached the rung, or its job has ended. `result`: its newest, None if its job
    ended without one that counts.
    """

    number: int
    is_done: bool
    result: TrialResult | None = None


@dataclass(frozen=True)
class Decision:
    """What follows a rung. Trials by number."""

    ranking: tuple[int, ...]
    """Best first."""
    fallen: tuple[int, ...]
    """Those whose job ended without a result."""
    kept: int
    """How many of the ranking continue; after the end, one has won, or none."""
    next_rung: int | None
    """None: the sweep has ended."""


def decide(
    contenders: Sequence[Contender], rung: int, rungs: Sequence[Rung], metric: Metric
) -> Decision | None:
    """Return what follows `rung`; None while a trial has not reached it.

    `rung` is an index of `rungs`, or their number for the end of the run. Equal trials are ranked
    by their number. Once no more trials are left than the last rung keeps, they train to the end.
    """
    if not all(each.is_done for each in contenders):
        return None
    ranked = sorted(
        (score, each.number)
        for each in contenders
        if (score := _score(each.result, metric)) is not None
    )
    ranking = tuple(number for _, number in ranked)
    fallen = tuple(sorted({each.number for each in contenders} - set(ranking)))
    if not ranking or rung >= len(rungs):
        return Decision(ranking, fallen, kept=min(1, len(ranking)), next_rung=None)
    kept = min(rungs[rung].keep, len(ranking))
    is_final = kept <= rungs[-1].keep
    return Decision(ranking, fallen, kept, next_rung=len(rungs) if is_final else rung + 1)


def _score(result: TrialResult | None, metric: Metric) -> float | None:
    """Return the number by which trials are ranked, the lowest first; None without one."""
    if result is None:
        return None
    value = value_of(result, metric)
    if value is None or not math.isfinite(value):
        return None
    return value if metric == "loss" else -value
