"""The benchmark of sweeps: the winner of a plan from curves."""

import json

from bench.sweep_curves import RATES, SHARES, Curve, Curves
from bench.sweep_plans import PLANS, winner_of
from bench.sweeps import MOST_RUNS, ranked

DEFAULT = next(iter(PLANS))


def curves(*finals: float, early: dict[int, float] | None = None) -> list[Curve]:
    """Constant losses, but for those at the first shares, up to an eighth."""
    return [
        Curve(
            rate,
            {share: (early or {}).get(n, loss) if share <= 0.125 else loss for share in SHARES},
        )
        for n, (rate, loss) in enumerate(zip(RATES, finals, strict=True))
    ]


def test_default_costs_at_most_2_7_runs() -> None:
    assert ranked(DEFAULT, [curves(*range(1, 9))]).runs <= MOST_RUNS


def test_winner_of_constant_losses_is_that_of_the_grid() -> None:
    found = ranked(DEFAULT, [curves(5, 4, 3, 1, 2, 6, 7, 8)])
    assert (found.same_winner, found.worst_excess_nats, found.best_fell_first) == (1, 0, 0)


def test_rate_that_is_bad_at_first_is_dropped_and_the_excess_is_told() -> None:
    late = curves(5, 4, 3, 1, 2, 6, 7, 8, early={3: 9})
    assert winner_of(late, PLANS[DEFAULT]) == (4, 0)
    found = ranked(DEFAULT, [late, curves(5, 4, 3, 1, 2, 6, 7, 8)])
    assert (found.same_winner, found.worst_excess_nats, found.mean_excess_nats) == (1, 1, 0.5)


def test_run_that_diverged_loses() -> None:
    broken = [Curve(each.rate, {}) for each in curves(*range(1, 9))[:7]]
    assert winner_of([*broken, curves(*range(1, 9))[7]], PLANS[DEFAULT])[0] == 7


def test_parts_of_a_curve_are_put_together(tmp_path) -> None:
    file = tmp_path / "curves.jsonl"
    early = {str(share): 2.0 for share in SHARES[:2]}
    late = {str(share): 1.0 for share in SHARES[2:]}
    for losses in (early, late):
        assert Curves(file).of(1) is None
        with file.open("a") as out:
            for rate in RATES:
                out.write(json.dumps({"seed": 1, "rate": rate, "losses": losses}) + "\n")
    stored = Curves(file).of(1)
    assert stored is not None and (stored[0].at(SHARES[0]), stored[0].at(1.0)) == (2.0, 1.0)
    assert Curves(file).of(2) is None
