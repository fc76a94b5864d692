"""Runs to compare predictions with: bases with real text, in children as a worker starts them.

`bench/planning.py` measures them, and `bench/planning_limits.py` kills those that need too much.
"""

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import data as benchmark_data
from bench.auto_data import take
from core.datasets.check import check
from core.planning.configs import config_of
from core.planning.fields import Fields
from core.planning.run import PlannedRun
from core.planning.workload import workload_of
from core.spec.base_model import BaseModelSpec
from core.spec.dataset import DatasetReport
from core.spec.events import MicroBatchHalved, RunFailed, StepDone, run_event_adapter
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec
from core.spec.run_request import RunRequest
from core.spec.strategy import StrategySpec
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from worker.launch import launch

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


@dataclass(frozen=True)
class Source:
    """A base and its training file."""

    base: BaseModelSpec
    train_file: Path
    task: str
    objective: ObjectiveSpec

    @cached_property
    def report(self) -> DatasetReport:
        """What the check of the file finds."""
        return check(self.train_file)


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    peak_bytes: int
    """Of its resident memory, the whole process."""
    seconds: tuple[float, ...]
    """Of each step."""
    failure: str | None = None
    """Why it did not end as it should."""

    @property
    def seconds_per_step(self) -> float:
        """The mean without the first step, which builds kernels."""
        return sum(self.seconds[1:]) / (len(self.seconds) - 1)


def planned(case: Case, source: Source) -> PlannedRun:
    """Return the run as the planner sees it before it starts."""
    training = {"max_steps": STEPS, "learning_rate": 1e-4, "truncation": "end", **case.training}
    spec = JobSpec.model_validate(
        {
            "base": source.base,
            "task": source.task,
            "objective": source.objective,
            "strategy": case.strategy,
            "training": TrainingSpec(**training),
            "seed": SEED,
        }
    )
    config = config_of(source.base, Path())
    assert config is not None
    size = source.train_file.stat().st_size
    workload = workload_of(spec, source.report, size, Fields(config))
    return PlannedRun(spec, config, workload)


def measured(
    spec: JobSpec,
    source: Source,
    folder: Path,
    threads: int | None = None,
    limit_bytes: float = math.inf,
) -> Measured:
    """Run the job in a child, which is killed once it has more than `limit_bytes`.

    The kernel does the same in a container. With one thread the time of a step is its CPU time,
    which other processes do not lengthen.
    """
    workspace = Workspace(folder=folder)
    folder.mkdir()
    workspace.train_file.symlink_to(source.train_file)
    child = launch(RunRequest(spec, workspace, threads=threads))
    peak, seconds, cpu, failure = 0, list[float](), 0.0, None
    try:
        while failure is None:
            peak = max(peak, _peak_bytes(child.process.pid))
            if peak > limit_bytes:
                failure = "killed"
                break
            if not child.events.poll(0.02):
                continue
            event = run_event_adapter.validate_json(child.events.recv_bytes())
            if isinstance(event, RunFailed):
                failure = event.message
            elif isinstance(event, MicroBatchHalved):
                failure = "out of memory"
            elif isinstance(event, StepDone):
                now = _cpu_seconds(child.process.pid)
                seconds.append(event.seconds if threads is None else now - cpu)
                cpu = now
    except EOFError:
        pass
    finally:
        child.kill()
        child.wait()
    return Measured(peak, tuple(seconds), failure)


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


def sources_of(folder: Path, names: set[str], real_bases: Path) -> dict[str, Source]:
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
