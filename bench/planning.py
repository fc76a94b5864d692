"""The planner's predictions beside real runs: peak memory and time.

Each run is a training child as the worker starts it, from loading to the bundle. What is counted is
the peak of its resident memory, the whole process. The prediction is made from the base's
config.json, the report of the file's check and a calibration of the machine, all before the run.
Each run has its own calibration, because the speed of a virtual machine changes from minute to
minute. The time is that of the steps after the first one, which builds kernels. Of several rounds,
the table has the run whose prediction of time is the median one.

Constants of the planner are fitted to the first list of runs only.

    python -m bench.planning [--held-out] [--only NAME] [--rounds N] [--save]
    python -m bench.planning --busy    # one thread and its CPU time, on a shared machine

Needs `make real-bases` (`--real-bases FOLDER`, if they are elsewhere).
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.planned_runs import ROOT, Case, Source, measured, planned, sources_of
from bench.results import save_table, set_up, table
from core.planning.fit import MARGIN, judge
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from worker.launch import ask_for_calibration, warm_up

FITTED = (
    Case("tiny", LoraSpec(), {"precision": "fp32"}),
    Case("tiny", FullSpec(), {"precision": "fp32"}),
    Case("tiny", PrefixSpec(), {"precision": "bf16"}),
    Case("27m", LoraSpec(), {"precision": "bf16"}),
    Case("27m", LoraSpec(), {"precision": "fp32", "batch_size": 24}),
    Case("27m", FullSpec(), {"precision": "fp32"}),
    Case("27m", BottleneckSpec(), {"precision": "bf16", "batch_size": 32}),
    Case("smollm2", LoraSpec(), {"precision": "fp32"}),
    Case("smollm2", QloraSpec(), {"precision": "bf16"}),
    Case(
        "smollm2",
        LoraSpec(),
        {"precision": "bf16", "batch_size": 16, "gradient_checkpointing": True},
    ),
    Case("minilm", LoraSpec(), {"precision": "fp32", "batch_size": 32}),
    Case("minilm", FullSpec(), {"precision": "fp32", "batch_size": 32}),
)

HELD_OUT = (
    Case("tiny", BottleneckSpec(), {"precision": "fp32", "batch_size": 32}),
    Case("tiny", LoraSpec(), {"precision": "fp32", "batch_size": 1}),
    Case("tiny", LoraSpec(), {"precision": "bf16", "batch_size": 64}),
    Case(
        "27m",
        LoraSpec(),
        {"precision": "fp32", "batch_size": 16, "max_length": 32, "truncation": "start"},
    ),
    Case("27m", FullSpec(), {"precision": "bf16", "batch_size": 16}),
    Case("27m", PromptSpec(), {"precision": "bf16"}),
    Case("27m", LoraSpec(use_dora=True), {"precision": "fp32", "batch_size": 4}),
    Case("27m", QloraSpec(), {"precision": "fp32"}),
    Case("smollm2", Ia3Spec(), {"precision": "bf16", "batch_size": 4}),
    Case("smollm2", FullSpec(), {"precision": "bf16", "batch_size": 2}),
    Case("smollm2", PrefixSpec(), {"precision": "fp32", "batch_size": 2}),
    Case("minilm", LoraSpec(), {"precision": "bf16", "batch_size": 8}),
    Case("minilm", BottleneckSpec(), {"precision": "fp32", "batch_size": 64}),
)
"""Other shapes, to which nothing is fitted."""


@dataclass(frozen=True)
class Compared:
    """One row of the table; memory in MiB, time in seconds per step."""

    configuration: str
    predicted_mib: float
    measured_mib: float
    memory_error: float
    fits: str
    predicted_seconds: float
    measured_seconds: float
    time_error: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--held-out", action="store_true", help="the second list of runs")
    options.add_argument("--rounds", type=int, default=1, help="runs of each configuration")
    options.add_argument("--only", help="run the configurations whose name contains this")
    options.add_argument("--real-bases", type=Path, default=ROOT / "build" / "real-bases")
    options.add_argument(
        "--busy", action="store_true", help="one thread, CPU time: on a shared machine"
    )
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    warm_up()
    threads = 1 if asked.busy else None
    listed = HELD_OUT if asked.held_out else FITTED
    cases = [case for case in listed if asked.only is None or asked.only in case.name]
    runs: dict[str, list[Compared]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        sources = sources_of(Path(folder), {case.base for case in cases}, asked.real_bases)
        for number in range(asked.rounds):
            for index, case in enumerate(cases):
                work = Path(folder) / f"run-{number}-{index}"
                runs[case.name].append(_compare(case, sources[case.base], work, threads))
                print(runs[case.name][-1], flush=True)
    rows = [sorted(own, key=lambda run: run.time_error)[len(own) // 2] for own in runs.values()]
    markdown = _report(rows, busy=asked.busy)
    print(markdown)
    if asked.save:
        name = "planning-held-out" if asked.held_out else "planning"
        figures = [vars(run) for own in runs.values() for run in own]
        for path in save_table(name, markdown, figures):
            print(f"Saved: {path}")


def _report(rows: Sequence[Compared], *, busy: bool) -> str:
    memory = [abs(row.memory_error) for row in rows]
    seconds = [abs(row.time_error) for row in rows]
    head = "\n".join(set_up("The planner beside real runs"))
    if busy:
        head = head.replace("wall time", "CPU time of one thread, on a shared machine")
    lines = [head, *table("Peak memory and time", rows), ""]
    lines += [
        f"Memory: at most {max(memory):.1%} off, {sum(memory) / len(memory):.1%} on average; the "
        f"margin of a verdict is {MARGIN:.0%}.",
        f"Time: at most {max(seconds):.1%} off, {sum(seconds) / len(seconds):.1%} on average.",
    ]
    return "\n".join(lines) + "\n"


def _compare(case: Case, source: Source, folder: Path, threads: int | None) -> Compared:
    calibration = ask_for_calibration(threads, lambda: False)
    if calibration is None:
        raise SystemExit("The device could not be measured.")
    print(calibration.model_dump_json(), flush=True)
    run = planned(case, source)
    fit = judge(run, calibration)
    assert fit.seconds_per_step is not None
    found = measured(run.spec, source, folder, threads)
    if found.failure is not None:
        raise SystemExit(f"The run failed: {found.failure}")
    predicted = fit.seconds_per_step
    return Compared(
        configuration=case.name,
        predicted_mib=fit.peak_bytes / 2**20,
        measured_mib=found.peak_bytes / 2**20,
        memory_error=fit.peak_bytes / found.peak_bytes - 1,
        fits=str(fit.verdict),
        predicted_seconds=predicted,
        measured_seconds=found.seconds_per_step,
        time_error=predicted / found.seconds_per_step - 1,
    )


if __name__ == "__main__":
    main()
