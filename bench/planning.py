"""The planner's predictions beside real runs: peak memory and time of twelve configurations.

Each run is a training child as the worker starts it, from loading to the bundle. What is counted is
the peak of its resident memory, the whole process. The prediction is made from the base's
config.json, the report of the file's check and the calibration of the machine, before the run. The
time is that of the steps after the first one, which builds kernels.

    python -m bench.planning [--only NAME] [--save]
    python -m bench.planning --busy    # one thread and its CPU time, on a shared machine

Needs `make real-bases` (`--real-bases FOLDER`, if they are elsewhere).
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import data as benchmark_data
from bench.auto_data import take
from bench.results import save_table, set_up, table
from core.datasets.check import check
from core.planning.configs import config_of
from core.planning.fields import Fields
from core.planning.fit import MARGIN, judge
from core.planning.run import PlannedRun
from core.planning.workload import workload_of
from core.spec.base_model import BaseModelSpec
from core.spec.calibration import Calibration
from core.spec.events import RunFailed, StepDone, run_event_adapter
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec
from core.spec.run_request import RunRequest
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    LoraSpec,
    PrefixSpec,
    QloraSpec,
    StrategySpec,
)
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from worker.launch import ask_for_calibration, launch, warm_up

ROOT = Path(__file__).parents[1]
STEPS = 4
SEED = 5


@dataclass(frozen=True)
class Case:
    """One configuration; `training` has what differs from the defaults."""

    base: str
    strategy: StrategySpec
    training: dict[str, Any]

    @property
    def name(self) -> str:
        options = [self.strategy.type, *(f"{key}={value}" for key, value in self.training.items())]
        return f"{self.base} {' '.join(options)}"


CASES = (
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


@dataclass(frozen=True)
class Source:
    """A base and its training file."""

    base: BaseModelSpec
    train_file: Path
    task: str
    objective: ObjectiveSpec


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--only", help="run the configurations whose name contains this")
    options.add_argument("--real-bases", type=Path, default=ROOT / "build" / "real-bases")
    options.add_argument(
        "--busy", action="store_true", help="one thread, CPU time: on a shared machine"
    )
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    warm_up()
    threads = 1 if asked.busy else None
    calibration = ask_for_calibration(threads, lambda: False)
    if calibration is None:
        raise SystemExit("The device could not be measured.")
    print(calibration.model_dump_json(indent=2), flush=True)
    cases = [case for case in CASES if asked.only is None or asked.only in case.name]
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(Path(folder), {case.base for case in cases}, asked.real_bases)
        rows = []
        for index, case in enumerate(cases):
            work = Path(folder) / f"run-{index}"
            rows.append(_compare(case, sources[case.base], calibration, work, threads))
            print(rows[-1], flush=True)
    markdown = _report(rows, busy=asked.busy)
    print(markdown)
    if asked.save:
        figures = {"calibration": calibration.model_dump(), "runs": [vars(row) for row in rows]}
        for path in save_table("planning", markdown, figures):
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


def _compare(
    case: Case, source: Source, calibration: Calibration, folder: Path, threads: int | None
) -> Compared:
    spec = JobSpec.model_validate(
        {
            "base": source.base,
            "task": source.task,
            "objective": source.objective,
            "strategy": case.strategy,
            "training": TrainingSpec(
                max_steps=STEPS, learning_rate=1e-4, truncation="end", **case.training
            ),
            "seed": SEED,
        }
    )
    config = config_of(source.base, Path())
    assert config is not None
    report, size = check(source.train_file), source.train_file.stat().st_size
    run = PlannedRun(spec, config, workload_of(spec, report, size, Fields(config)))
    fit = judge(run, calibration)
    assert fit.seconds_per_step is not None
    peak, seconds = _measured(spec, source, folder, threads)
    measured = sum(seconds[1:]) / (len(seconds) - 1)
    predicted = fit.seconds_per_step
    return Compared(
        configuration=case.name,
        predicted_mib=fit.peak_bytes / 2**20,
        measured_mib=peak / 2**20,
        memory_error=fit.peak_bytes / peak - 1,
        fits=str(fit.verdict),
        predicted_seconds=predicted,
        measured_seconds=measured,
        time_error=predicted / measured - 1,
    )


def _measured(
    spec: JobSpec, source: Source, folder: Path, threads: int | None
) -> tuple[int, list[float]]:
    """Run the job in a child; return its peak of resident memory, and the time of each step.

    With one thread it is the CPU time, which other processes do not lengthen.
    """
    workspace = Workspace(folder=folder)
    folder.mkdir()
    workspace.train_file.symlink_to(source.train_file)
    child = launch(RunRequest(spec, workspace, threads=threads))
    peak, seconds, cpu = 0, list[float](), 0.0
    try:
        while True:
            peak = max(peak, _peak_bytes(child.process.pid))
            if not child.events.poll(0.02):
                continue
            event = run_event_adapter.validate_json(child.events.recv_bytes())
            if isinstance(event, RunFailed):
                raise SystemExit(f"The run failed: {event.message}\n{child.log_tail()}")
            if isinstance(event, StepDone):
                now = _cpu_seconds(child.process.pid)
                seconds.append(event.seconds if threads is None else now - cpu)
                cpu = now
    except EOFError:
        pass
    finally:
        child.kill()
        child.wait()
    return peak, seconds


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int | None) -> int:
    """Return the highest resident memory of a process so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM:")), 0)


def _sources(folder: Path, names: set[str], real_bases: Path) -> dict[str, Source]:
    """Return a base with real text for each name."""
    sources: dict[str, Source] = {}
    for name in names:
        part = folder / name
        part.mkdir()
        rows = 160
        match name:
            case "27m":
                built = benchmark_data.build(part, rows, SEED)
                sources[name] = _generating(name, built.base_folder, built.train_file)
            case "smollm2":
                built = benchmark_data.build_on(real_bases / name, part, rows, SEED)
                sources[name] = _generating(name, built.base_folder, built.train_file)
            case "tiny":
                file = _write(part, "module of a docstring", rows)
                sources[name] = _generating(name, ROOT / "core" / "models" / "tiny", file)
            case _:
                sources[name] = _classifying(name, real_bases / name, part, rows)
    return sources


def _generating(name: str, base: Path, train_file: Path) -> Source:
    spec = BaseModelSpec(id=name, source=str(base.resolve()))
    return Source(spec, train_file, "generation", SupervisedSpec())


def _classifying(name: str, base: Path, folder: Path, rows: int) -> Source:
    file = _write(folder, "module as a label", rows)
    with file.open(encoding="utf-8") as lines:
        labels = sorted({json.loads(line)["label"] for line in lines})
    spec = BaseModelSpec(id=name, source=str(base.resolve()))
    return Source(spec, file, "classification", ClassificationSpec(labels=tuple(labels)))


def _write(folder: Path, dataset: str, rows: int) -> Path:
    file = folder / "train.jsonl"
    taken = take(dataset, folder, math.ceil(rows), 0, SEED).train
    file.write_text("".join(json.dumps(row) + "\n" for row in taken), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
