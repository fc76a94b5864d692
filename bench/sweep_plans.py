"""Plans of rungs for `bench.sweeps`, and the winners that they find on curves."""

from collections.abc import Sequence

from bench.sweep_curves import RATES, Curve
from core.spec.sweep import HalvingSpec, Rung
from core.spec.trial import WHOLE_RUN, TrialResult
from core.sweeps.rungs import Contender, decide, rungs_of, share_of


def _stages(*stages: tuple[float, int]) -> tuple[Rung, ...]:
    """Return the rungs with these shares and trials that continue."""
    entering = [len(RATES), *(keep for _, keep in stages)]
    return tuple(
        Rung(share=share, trials=trials, keep=keep)
        for (share, keep), trials in zip(stages, entering, strict=False)
    )


PLANS: dict[str, tuple[Rung, ...]] = {
    "default: 6.5% 8→4, 9.75% 4→3, 33% 3→2": rungs_of(len(RATES), HalvingSpec()),
    "6.5% 8→4, 9.75% 4→3, 30% 3→2": _stages((0.065, 4), (0.0975, 3), (0.3, 2)),
    "6.5% 8→4, 9.75% 4→3, 36% 3→2": _stages((0.065, 4), (0.0975, 3), (0.36, 2)),
    "8% 8→4, 12.5% 4→3, 30% 3→2": _stages((0.08, 4), (0.125, 3), (0.3, 2)),
    "6.5% 8→3, 36% 3→2": _stages((0.065, 3), (0.36, 2)),
    "8% 8→3, 33% 3→2": _stages((0.08, 3), (0.33, 2)),
    "8% 8→4, 12.5% 4→2": _stages((0.08, 4), (0.125, 2)),
    "9.75% 8→2": _stages((0.0975, 2)),
    "12.5% 8→3, 36% 3→1": _stages((0.125, 3), (0.36, 1)),
}
"""By share and trials; those left at the end are trained to it."""


def winner_of(curves: Sequence[Curve], rungs: Sequence[Rung]) -> tuple[int, int | None]:
    """Return the winner of a plan, and the rung at which the grid's winner was dropped."""
    best = best_of(curves)
    left, rung, fell = list(range(len(curves))), 0, None
    while True:
        share = share_of(rung, rungs)
        contenders = [Contender(n, True, _result(curves[n], share)) for n in left]
        decision = decide(contenders, rung, rungs, "loss")
        assert decision is not None and decision.kept, "every trial has failed"
        left = list(decision.ranking[: decision.kept])
        if best not in left and fell is None:
            fell = rung
        if decision.next_rung is None:
            return left[0], fell
        rung = decision.next_rung


def best_of(curves: Sequence[Curve]) -> int:
    """Return the trial with the lowest loss at the end."""
    return min(range(len(curves)), key=lambda number: (curves[number].at(WHOLE_RUN), number))


def _result(curve: Curve, share: float) -> TrialResult | None:
    loss = curve.losses.get(share)
    return None if loss is None else TrialResult(share=share, step=0, loss=loss, accuracy=None)
