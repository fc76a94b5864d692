"""A quality table: every strategy beside TRL and PEFT, with one budget for both sides.

In the form of PEFT's own comparison of methods: held-out accuracy, CPU seconds and memory of every
strategy, on three bases and real tasks, over three seeds. bench/README.md says what is compared.

    make bench-quality                              # what has not been measured yet (hours)
    python -m bench.quality --only tiny,minilm      # some bases
    python -m bench.quality --table --save          # the table of what has been measured
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch

from bench.quality_cells import BUDGETS, SEEDS, STRATEGIES, Budget, Cell, Outcome, Side
from bench.quality_run import measure
from bench.quality_table import report, save

RESULTS = Path("build") / "quality" / "outcomes.jsonl"
"""A line for each cell; none is measured twice."""
UNTRAINED = "untrained"


def cells(budget: Budget) -> Iterator[Cell]:
    """Yield the cells of a task, seed by seed."""
    sides: tuple[Side, ...] = ("ours", "peer")
    for seed in SEEDS:
        if budget.answer_tokens:  # a new classifier has no labels of its own
            yield Cell(budget, UNTRAINED, seed, "untrained")
        for strategy in STRATEGIES:
            for side in sides:
                yield Cell(budget, strategy, seed, side)


def stored() -> dict[Cell, Outcome]:
    """Return what has been measured."""
    found: dict[Cell, Outcome] = {}
    if RESULTS.exists():
        for line in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()):
            cell, outcome = line["cell"], line["outcome"]
            budget = Budget(**cell.pop("budget"))
            lists = {name: tuple(outcome[name]) for name in ("losses", "answers", "right")}
            found[Cell(budget, **cell)] = Outcome(**outcome | lists)
    return found


def store(cell: Cell, outcome: Outcome) -> None:
    """Append what a cell has measured."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write(json.dumps({"cell": cell.key, "outcome": asdict(outcome)}) + "\n")


def measure_all(budgets: Iterable[Budget]) -> None:
    """Measure every cell that is not stored, each in a new process, and store it at once.

    The processes are copies of one that has imported everything, so both sides begin with the same
    memory, and no imports are measured.
    """
    known = stored()
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.quality_run"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for cell in (each for budget in budgets for each in cells(budget)):
            if cell in known:
                continue
            outcome = pool.submit(measure, cell).result()
            store(cell, outcome)
            shown = f"{sum(outcome.right)} of {len(outcome.right)} in {outcome.seconds:.0f} s"
            budget = cell.budget
            told = budget.base, budget.task, cell.strategy, cell.seed, cell.side, shown
            print(*told, outcome.failure or "", sep=", ", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--only", help="bases, separated by commas")
    options.add_argument("--table", action="store_true", help="measure nothing")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    torch.set_num_threads(1)
    only = (asked.only or "").split(",")
    budgets = [each for each in BUDGETS if not asked.only or each.base in only]
    if not asked.table:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"
        measure_all(budgets)
    found = stored()
    if not found:
        raise SystemExit("Nothing has been measured yet.")
    print(report(found))
    if asked.save:
        print("Saved:", *save(found))


if __name__ == "__main__":
    main()
