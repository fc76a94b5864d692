"""Jobs near a limit of memory: what the planner says about them, and what then happens.

For every ladder of batch sizes and its limit: the largest job that fits (`yes`), the next one, and
the smallest job that is refused (`no`). Each runs in a child that is killed once it has more memory
than the limit, as the kernel does in a container. A `yes` that is killed is an error of the
planner; so is a `no` that runs, though a refusal leaves a margin.

    python -m bench.planning_limits [--only NAME] [--save]

Needs `make real-bases` (`--real-bases FOLDER`, if they are elsewhere).
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.planned_runs import ROOT, Case, Source, measured, planned, sources_of
from bench.results import save_table, set_up, table
from core.planning.fit import Verdict, judge
from core.spec.calibration import Calibration
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    LoraSpec,
    PrefixSpec,
    QloraSpec,
    StrategySpec,
)
from worker.launch import ask_for_calibration, warm_up

LARGEST_BATCH = 160
"""The rows of a source."""


@dataclass(frozen=True)
class Ladder:
    """Jobs that differ in their batch size, which is one micro-batch each."""

    base: str
    strategy: StrategySpec
    limit_mib: int
    precision: str = "fp32"
    checkpointed: bool = False

    def case(self, batch_size: int) -> Case:
        training: dict[str, Any] = {
            "precision": self.precision,
            "gradient_checkpointing": self.checkpointed,
            "batch_size": batch_size,
            "micro_batch_tokens": 65_536,
        }
        return Case(self.base, self.strategy, training)


LADDERS = (
    Ladder("tiny", LoraSpec(), 900),
    Ladder("tiny", BottleneckSpec(), 800, "bf16"),
    Ladder("tiny", PrefixSpec(), 900),
    Ladder("27m", LoraSpec(), 2000),
    Ladder("27m", LoraSpec(), 1600, "bf16"),
    Ladder("27m", FullSpec(), 2000),
    Ladder("27m", BottleneckSpec(), 2000, "bf16"),
    Ladder("27m", LoraSpec(), 1100, "bf16", checkpointed=True),
    Ladder("27m", QloraSpec(), 1600),
    Ladder("minilm", LoraSpec(), 1300),
    Ladder("minilm", FullSpec(), 1300),
    Ladder("smollm2", LoraSpec(), 4000, "bf16"),
    Ladder("smollm2", FullSpec(), 5000),
)


@dataclass(frozen=True)
class Outcome:
    """One row of the table; memory in MiB."""

    base: str
    strategy: str
    precision: str
    limit_mib: int
    batch_size: int
    predicted_mib: float
    planner: str
    measured_mib: float
    run: str


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--only", help="climb the ladders whose first job's name contains this")
    options.add_argument("--real-bases", type=Path, default=ROOT / "build" / "real-bases")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    ladders = [each for each in LADDERS if asked.only is None or asked.only in each.case(1).name]
    warm_up()
    calibration = ask_for_calibration(None, lambda: False)
    if calibration is None:
        raise SystemExit("The device could not be measured.")
    with tempfile.TemporaryDirectory() as folder:
        sources = sources_of(Path(folder), {each.base for each in ladders}, asked.real_bases)
        rows = []
        for number, ladder in enumerate(ladders):
            work = Path(folder) / f"ladder-{number}"
            work.mkdir()
            for row in climb(ladder, sources[ladder.base], calibration, work):
                rows.append(row)
                print(row, flush=True)
    markdown = _report(rows)
    print(markdown)
    if asked.save:
        for path in save_table("planning-limits", markdown, [vars(row) for row in rows]):
            print(f"Saved: {path}")


def climb(ladder: Ladder, source: Source, calibration: Calibration, folder: Path) -> list[Outcome]:
    """Run the jobs around the limit."""
    limit = ladder.limit_mib * 2**20
    device = calibration.model_copy(update={"memory_bytes": limit, "free_bytes": limit})
    verdicts = [_verdict(ladder, size, source, device) for size in range(1, LARGEST_BATCH + 1)]
    chosen = []
    if "yes" in verdicts:
        last = LARGEST_BATCH - verdicts[::-1].index("yes")
        chosen += [last, last + 1] if last < LARGEST_BATCH else [last]
    if "no" in verdicts:
        chosen.append(verdicts.index("no") + 1)
    return [_outcome(ladder, size, source, device, folder) for size in dict.fromkeys(chosen)]


def _verdict(ladder: Ladder, size: int, source: Source, device: Calibration) -> Verdict | None:
    return judge(planned(ladder.case(size), source), device).verdict


def _outcome(
    ladder: Ladder, size: int, source: Source, device: Calibration, folder: Path
) -> Outcome:
    run = planned(ladder.case(size), source)
    fit = judge(run, device)
    found = measured(run.spec, source, folder / str(size), limit_bytes=device.memory_bytes)
    return Outcome(
        base=ladder.base,
        strategy=ladder.strategy.type,
        precision=ladder.precision,
        limit_mib=ladder.limit_mib,
        batch_size=size,
        predicted_mib=fit.peak_bytes / 2**20,
        planner=str(fit.verdict),
        measured_mib=found.peak_bytes / 2**20,
        run=found.failure or "ended",
    )


def _report(rows: Sequence[Outcome]) -> str:
    lines = [*set_up("The planner near a limit of memory"), *table("Jobs", rows), ""]
    for verdict in ("yes", "tight", "no"):
        ended = [row.run == "ended" for row in rows if row.planner == verdict]
        lines.append(f"`{verdict}`: {sum(ended)} of {len(ended)} runs ended.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
