"""The arithmetic of the quality table, and its Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from bench.measure import hardware
from bench.quality_cells import BUDGETS, SEEDS, STRATEGIES, Budget, Cell, Outcome
from bench.results import save_table, set_up

STANDARD_ERRORS = 2
"""The length of an error bar."""

COMMANDS = "make bench-quality", "python -m bench.quality --table --save"


@dataclass(frozen=True)
class Compared:
    """A strategy on a task: our runs and the peer's, one of each per seed."""

    ours: tuple[Outcome, ...]
    peer: tuple[Outcome, ...]

    @property
    def difference(self) -> float:
        """The mean accuracy of ours minus that of the peer."""
        return fmean(self._by_seed)

    @property
    def error(self) -> float:
        """Two standard errors of the difference, as the seeds or as the answers show it.

        Both sides answer the same rows, so differences are those of pairs. The larger of the two
        counts: three seeds may agree by chance, and a few answers may depend on the seed.
        """
        return STANDARD_ERRORS * max(_standard_error(self._by_seed), _standard_error(self._by_row))

    @property
    def is_as_good(self) -> bool:
        """Whether ours is at or above the peer, within the error bar."""
        return self.difference + self.error >= 0

    @property
    def _by_seed(self) -> list[float]:
        return [
            accuracy(ours) - accuracy(peer) for ours, peer in zip(self.ours, self.peer, strict=True)
        ]

    @property
    def _by_row(self) -> list[float]:
        return [
            float(mine) - float(theirs)
            for ours, peer in zip(self.ours, self.peer, strict=True)
            for mine, theirs in zip(ours.right, peer.right, strict=True)
        ]


def accuracy(outcome: Outcome) -> float:
    """Return the share of held-out rows that were answered right."""
    return fmean(outcome.right)


def compared(found: Mapping[Cell, Outcome], budget: Budget, strategy: str) -> Compared | None:
    """Return the seeds that both sides have run; None without any."""
    pairs = [
        (ours, peer)
        for seed in SEEDS
        for ours, peer in [[found.get(Cell(budget, strategy, seed, s)) for s in ("ours", "peer")]]
        if ours is not None and peer is not None
    ]
    if not pairs:
        return None
    ours, peer = zip(*pairs, strict=True)
    return Compared(ours, peer)


def report(found: Mapping[Cell, Outcome]) -> str:
    """Return the Markdown of all tasks, with what is missing and what is below the peer."""
    lines = [
        *set_up("Quality: every strategy beside TRL and PEFT", "CPU time"),
        f"TRL {version('trl')}, bitsandbytes {version('bitsandbytes')}; fp32, one process with "
        "one thread, on a shared machine.",
        "",
        "Accuracy is the share of held-out rows answered right by greedy decoding: mean ± standard "
        f"deviation over the seeds {', '.join(map(str, SEEDS))}. The difference is ours minus that "
        "of the peer, ± two standard errors. Seconds and MiB are medians over the seeds; "
        "bench/README.md says what they contain.",
        "",
        *(f"    {command}" for command in COMMANDS),
    ]
    below: list[str] = []
    missing: list[str] = []
    for budget in BUDGETS:
        rows = {name: compared(found, budget, name) for name in STRATEGIES}
        lines += _section(found, budget, rows)
        where = f"{budget.base}, {budget.task}"
        seeds = {name: 0 if row is None else len(row.ours) for name, row in rows.items()}
        lacking = [f"{name} (seeds: {n})" for name, n in seeds.items() if n < len(SEEDS)]
        if lacking:
            missing.append(f"{where}: {', '.join(lacking) if any(seeds.values()) else 'all'}")
        below += [
            f"{where}, {name}: {row.difference:+.3f} ± {row.error:.3f}"
            for name, row in rows.items()
            if row is not None and not row.is_as_good
        ]
    lines += ["", "## Below the peer by more than the error bar", "", *_listed(below)]
    lines += ["", "## Not measured, or not with three seeds", "", *_listed(missing), ""]
    return "\n".join(lines)


def save(found: Mapping[Cell, Outcome]) -> tuple[Path, Path]:
    """Write the table, and every run without its answers, into bench/results."""
    figures: Any = {
        "hardware": hardware(1),
        "commands": COMMANDS,
        "seeds": SEEDS,
        "runs": [_figures(cell, outcome) for cell, outcome in found.items()],
    }
    return save_table("quality", report(found), figures)


def _figures(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """Return a run with its right answers as a text of 0 and 1, and its first and last losses."""
    own = asdict(outcome)
    losses = own.pop("losses")
    del own["answers"]
    own["right"] = "".join("01"[each] for each in outcome.right)
    own["losses"] = [round(loss, 4) for loss in (*losses[:1], *losses[-3:])]
    return cell.key | own


def _section(
    found: Mapping[Cell, Outcome], budget: Budget, rows: Mapping[str, Compared | None]
) -> list[str]:
    measured = {name: row for name, row in rows.items() if row is not None}
    if not measured:
        return []
    one = next(iter(measured.values())).ours[0]
    lines = [
        "",
        f"## {budget.base}: {budget.task}",
        "",
        f"{budget.rows} rows, {one.epochs} epochs, {one.batch_size} rows in a step, {one.steps} "
        f"steps, {budget.held_out} held-out rows for each seed.{_untrained(found, budget)}",
        "",
        "| Strategy | Rate | Ours | TRL + PEFT | Difference | Seconds, ours | peer | MiB, ours | "
        "peer |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return [*lines, *(_row(name, row) for name, row in measured.items())]


def _row(name: str, row: Compared) -> str:
    sign = "" if row.is_as_good else " **below**"
    cells = (
        name,
        f"{row.ours[0].learning_rate:g}",
        _accuracies(row.ours),
        _accuracies(row.peer),
        f"{row.difference:+.3f} ± {row.error:.3f}{sign}",
        *(f"{median([each.seconds for each in side]):.1f}" for side in (row.ours, row.peer)),
        *(f"{median([e.peak_bytes for e in side]) / 2**20:.0f}" for side in (row.ours, row.peer)),
    )
    return "| " + " | ".join(cells) + " |"


def _untrained(found: Mapping[Cell, Outcome], budget: Budget) -> str:
    bases = [found.get(Cell(budget, "untrained", seed, "untrained")) for seed in SEEDS]
    scores = [accuracy(each) for each in bases if each is not None]
    return f" Untrained: {fmean(scores):.3f}." if scores else ""


def _accuracies(outcomes: Sequence[Outcome]) -> str:
    scores = [accuracy(each) for each in outcomes]
    spread = f" ± {stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{fmean(scores):.3f}{spread}"


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _listed(items: Sequence[str]) -> list[str]:
    return [f"- {item}" for item in items] or ["Nothing."]
