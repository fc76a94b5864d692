"""Does a sweep find the best learning rate of a grid, and what does it cost?

Winner: eight rates, each trained to its end in the recipe, which evaluates the held-out rows at
shares of the run as at the rungs of a sweep. A run that pauses at a rung has the same weights, so
these curves give the winner of every plan of rungs. The rows, their order and the new weights are
drawn by the seed. Cost: a job and a sweep over the same rates, through the service.

    make bench-sweeps                             # both, half an hour on two idle cores
    python -m bench.sweeps --seeds 3              # fewer seeds of the first part
    python -m bench.sweeps --table                # the table of what has been measured
    python -m bench.sweeps --cost-only --save
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from bench.results import save_table, set_up, table
from bench.sweep_cost import Cost, measured_cost
from bench.sweep_curves import RATES, Curve, Curves
from bench.sweep_plans import PLANS, best_of, winner_of
from core.spec.trial import WHOLE_RUN
from core.sweeps.rungs import planned_runs

MOST_RUNS = 2.7
RESULTS = Path("build") / "sweeps" / "curves.jsonl"
SEEDS = 10


@dataclass(frozen=True)
class Ranked:
    """A plan, and how well its winners are those of the full grid."""

    plan: str
    runs: float
    seeds: int
    same_winner: int
    worst_excess_nats: float
    """Of the held-out loss of its winner above that of the grid's, over the seeds."""
    mean_excess_nats: float
    best_fell_first: int
    """Seeds in which the grid's winner was dropped at the first rung."""


def ranked(name: str, seeds: Sequence[Sequence[Curve]]) -> Ranked:
    """Return how a plan does over the curves of some seeds."""
    rungs, excess, same, first = PLANS[name], [], 0, 0
    for curves in seeds:
        winner, fell = winner_of(curves, rungs)
        same += winner == best_of(curves)
        first += fell == 0
        excess.append(curves[winner].at(WHOLE_RUN) - curves[best_of(curves)].at(WHOLE_RUN))
    runs = planned_runs(len(RATES), rungs)
    return Ranked(name, runs, len(seeds), same, max(excess), fmean(excess), first)


def _curve_lines(seeds: dict[int, list[Curve]]) -> list[str]:
    """Return the final losses of all rates of all seeds, as a table."""
    lines = ["", "Held-out losses at the end (nats per target):", ""]
    lines.append("| seed | " + " | ".join(f"{rate:g}" for rate in RATES) + " | default's winner |")
    lines.append("|" + " --- |" * (len(RATES) + 2))
    for seed, curves in seeds.items():
        best = best_of(curves)
        cells = [f"{each.at(WHOLE_RUN):.4f}" for each in curves]
        cells[best] = f"**{cells[best]}**"
        winner, _ = winner_of(curves, next(iter(PLANS.values())))
        lines.append(f"| {seed} | " + " | ".join(cells) + f" | {RATES[winner]:g} |")
    return lines


def _cost_lines(cost: Cost | None) -> list[str]:
    return [] if cost is None else table("Through the service, one worker", [cost])


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--first-seed", type=int, default=1)
    options.add_argument("--table", action="store_true", help="measure nothing")
    options.add_argument("--no-cost", action="store_true")
    options.add_argument("--cost-only", action="store_true")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    torch.set_num_threads(1)
    curves = Curves(RESULTS)
    wanted = range(asked.first_seed, asked.first_seed + asked.seeds)
    if not (asked.table or asked.cost_only):
        for seed in wanted:
            curves.measure(seed)
    seeds = {seed: found for seed in wanted if (found := curves.of(seed)) is not None}
    cost = None
    if not (asked.table or asked.no_cost):
        with tempfile.TemporaryDirectory() as folder:
            cost = measured_cost(Path(folder))
    plans = [ranked(name, list(seeds.values())) for name in PLANS] if seeds else []
    lines = [
        *set_up("A sweep over eight learning rates beside the full grid"),
        *_cost_lines(cost),
        *(table("Plans of rungs", plans) if plans else []),
        *(_curve_lines(seeds) if seeds else []),
        "",
    ]
    report = "\n".join(lines)
    print(report)
    if asked.save:
        figures = {"cost": cost and asdict(cost), "plans": [asdict(each) for each in plans]}
        print("Saved:", *save_table("sweeps", report, figures))


if __name__ == "__main__":
    main()
