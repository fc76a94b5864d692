"""Is `auto` a good learning rate? Held-out scores of a grid of rates beside that of `auto`.

Small datasets of real text on three bases, each trained as the service would train them with every
hyperparameter on `auto`, but for the rate. The score of a rate is the share it gains of what the
best rate gains on the untrained model, in held-out loss after the last step, each the mean over
seeds that draw the rows, their order and the new weights. `2e-4` is what `auto` was for LoRA on any
base.

    make bench-auto                                # every case, hours on two cores
    python -m bench.auto --only tiny               # those of one base
    python -m bench.auto --table --save            # the table of what has been measured
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from bench.auto_data import take
from bench.auto_runs import Bench, Case, Score, objective_of
from bench.results import save_table, set_up
from core.catalog.describe import describe
from core.catalog.hyperparameters import Hyperparameters, resolve
from core.spec.base_model import BaseModelSpec
from core.spec.strategy import BottleneckSpec, FullSpec, LoraSpec, PrefixSpec, PromptSpec
from core.spec.training import TrainingSpec

BUILD = Path("build")
BASES = {
    "tiny": Path(__file__).parents[1] / "core" / "models" / "tiny",
    "minilm": BUILD / "real-bases" / "minilm",
    "smollm2": BUILD / "real-bases" / "smollm2",
}
EARLIER = 2e-4
ENOUGH = 0.95
FEWEST_RATES = 4

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
SEEDS = (1, 2, 3)
ONE_SEED = (2,)
"""The seeds of the rows on which a strategy's constants were chosen."""
MODULE = "module of a docstring"


@dataclass(frozen=True)
class Grid:
    """A case, and the grid of rates around the rate of `auto`."""

    case: Case
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = SEEDS

    @property
    def cases(self) -> tuple[Case, ...]:
        """The case with each seed."""
        return tuple(replace(self.case, seed=seed) for seed in self.seeds)


GRIDS = (
    Grid(Case(MODULE, "tiny", 200), (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)),
    Grid(Case("sums", "tiny", 96)),
    Grid(Case("text reversed", "tiny", 96)),
    Grid(Case("docstrings", "tiny", 96, 60)),
    Grid(Case("better module", "tiny", 128, 80), (1e-4, 3e-4, 1e-3, 3e-3, 8e-3)),
    Grid(Case("tweets", "minilm", 96, 80)),
    Grid(Case("module as a label", "minilm", 96, 80)),
    Grid(Case("kind of puzzle", "minilm", 96, 100)),
    Grid(Case("sums", "smollm2", 40, 32), (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3)),
    Grid(Case(MODULE, "smollm2", 40, 32), (4e-4, 1e-3, 2.5e-3, 5e-3)),
    Grid(
        Case(MODULE, "tiny", 200, strategy=FullSpec()),
        (1e-4, 2e-4, 4e-4, 1e-3, 2e-3),
        ONE_SEED,
    ),
    Grid(
        Case(MODULE, "tiny", 200, strategy=LoraSpec(use_rslora=True)),
        (3e-4, 6e-4, 1.2e-3),
        ONE_SEED,
    ),
    Grid(
        Case(MODULE, "tiny", 200, strategy=BottleneckSpec()),
        (1e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2),
        ONE_SEED,
    ),
    Grid(Case(MODULE, "tiny", 200, strategy=PrefixSpec()), (1e-2, 3e-2, 0.1, 0.2), ONE_SEED),
    Grid(Case(MODULE, "tiny", 200, strategy=PromptSpec()), (1e-2, 3e-2, 0.1, 0.3, 1.0), ONE_SEED),
)


@dataclass(frozen=True)
class Compared:
    """The losses of a grid by rate, each the mean over the seeds."""

    name: str
    base: str
    strategy: str
    rows: int
    steps: int
    seeds: int
    untrained: float
    losses: dict[float, float]
    auto: float

    @property
    def best(self) -> float:
        return min(self.losses, key=lambda rate: self.losses[rate])

    def share(self, rate: float) -> float:
        """Return the gain of `rate` as a share of the best rate's gain."""
        gain = self.untrained - self.losses[self.best]
        return (self.untrained - self.losses[rate]) / gain


def compare(bench: Bench, grid: Grid, *, measure: bool) -> Compared | None:
    """Return the grid's losses; with `measure` False, only those measured before.

    None unless these include the rate of `auto` and at least three others.
    """
    case, cases = grid.case, grid.cases
    hyper = _automatic(bench, case)
    automatic = hyper.pop("learning_rate")
    rates = sorted({*grid.rates, automatic, *([EARLIER] if case.strategy == LoraSpec() else [])})
    if not measure:
        rates = [
            rate
            for rate in rates
            if all(bench.has(each, hyper | {"learning_rate": rate}) for each in cases)
        ]
        if automatic not in rates or len(rates) < FEWEST_RATES:
            return None
    scores = {
        rate: [bench.run(each, hyper | {"learning_rate": rate}) for each in cases] for rate in rates
    }
    rslora = " with rsLoRA" * getattr(case.strategy, "use_rslora", False)
    return Compared(
        name=case.dataset,
        base=case.base,
        strategy=f"{case.strategy.type}{rslora}",
        rows=case.rows,
        steps=max(score.steps for score in scores[automatic]),
        seeds=len(cases),
        untrained=_mean([bench.untrained(each) for each in cases]),
        losses={rate: _mean(of_seeds) for rate, of_seeds in scores.items()},
        auto=automatic,
    )


def _mean(scores: list[Score]) -> float:
    return fmean(score.loss for score in scores)


def _automatic(bench: Bench, case: Case) -> dict[str, Any]:
    """Return the epochs, batch size and rate that the API resolves `auto` to."""
    objective = objective_of(take(case.dataset, bench.sources, case.rows, case.held_out, case.seed))
    facts = describe(BaseModelSpec(id=case.base, source=str(bench.bases[case.base].absolute())))
    assert facts is not None, f"{bench.bases[case.base]} is not there; make real-bases"
    training = resolve(
        Hyperparameters(),
        TrainingSpec(),
        rows=case.rows,
        strategy=case.strategy,
        objective=objective,
        hidden_size=facts.hidden_size,
    ).training
    return {name: getattr(training, name) for name in ("epochs", "batch_size", "learning_rate")}


def table(found: list[Compared]) -> list[str]:
    """Return a Markdown table with a line per grid."""
    lines = [
        "| Dataset | Base | Strategy | Rows | Steps | Seeds | Rates | Untrained | "
        "Best of the grid | `auto` | Share of `auto` | At 2e-4 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        earlier = f"{each.share(EARLIER):.3f}" if EARLIER in each.losses else ""
        share = each.share(each.auto)
        shown = f"{share:.3f}" if share < ENOUGH else f"**{share:.3f}**"
        cells = (
            each.name,
            each.base,
            each.strategy,
            each.rows,
            each.steps,
            each.seeds,
            len(each.losses),
            f"{each.untrained:.3f}",
            f"{each.losses[each.best]:.3f} at {each.best:g}",
            f"{each.losses[each.auto]:.3f} at {each.auto:g}",
            shown,
            earlier,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--only", help="run only the cases of this base")
    options.add_argument(
        "--table", action="store_true", help="print the table without new measurements"
    )
    options.add_argument("--save", action="store_true")
    options.add_argument("--bases", type=Path, default=BUILD / "real-bases")
    asked = options.parse_args()
    torch.set_num_threads(1)
    bases = {name: BASES["tiny"] if name == "tiny" else asked.bases / name for name in BASES}
    bench = Bench(bases, BUILD / "auto", BUILD / "auto" / "runs.jsonl")
    found = []
    for grid in GRIDS:
        if asked.only in (None, grid.case.base):
            compared = compare(bench, grid, measure=not asked.table)
            if compared is not None:
                found.append(compared)
                print("\n".join(table([compared])[-1:]), flush=True)
    lines = [
        *set_up("The learning rate of auto beside grids of rates"),
        "fp32, one thread, wall time not compared. Losses are held-out means in nats per target "
        "after the last step and over the seeds. The share is (untrained - loss) / "
        "(untrained - best loss), where the best is that of all rates run, `auto` among them; bold "
        f"from {ENOUGH} on.",
        "",
        *table(found),
    ]
    print("\n".join(lines))
    if asked.save:
        save_table("auto", "\n".join(lines) + "\n", [asdict(each) for each in found])


if __name__ == "__main__":
    main()
