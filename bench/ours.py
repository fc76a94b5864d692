"""Our side: the recipe of every job, run as in the training child."""

import tempfile
from pathlib import Path

import torch

from bench.data import BenchmarkData
from bench.measure import Clock, MeasuredRun, MeasuredStep
from core.spec.base_model import BaseModelSpec
from core.spec.events import StepDone
from core.spec.job import JobSpec
from core.spec.strategy import StrategySpec
from core.spec.training import Precision, TrainingSpec
from core.spec.workspace import Workspace
from core.training.recipe import train


def job_spec(
    data: BenchmarkData, strategy: StrategySpec, precision: Precision, batch_rows: int, seed: int
) -> JobSpec:
    """The strategy with a constant learning rate, which the peer uses too."""
    return JobSpec(
        base=BaseModelSpec(id=f"benchmark-{data.size.name.lower()}", source=str(data.base_folder)),
        strategy=strategy,
        training=TrainingSpec(
            epochs=1,
            batch_size=batch_rows,
            learning_rate=2e-4,
            schedule="constant",
            warmup_ratio=0.0,
            gradient_checkpointing=False,
            precision=precision,
        ),
        seed=seed,
    )


def run_ours(data: BenchmarkData, spec: JobSpec, steps: int, clock: Clock) -> MeasuredRun:
    """Run the first `steps` steps of the job, including reading the dataset."""
    measured: list[MeasuredStep] = []
    threads = torch.get_num_threads()  # a run may lower it, and a peer may follow in this process
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder=Path(folder))
        workspace.train_file.symlink_to(data.train_file)
        last = clock()
        for event in train(spec, workspace, stop=lambda: False):
            if not isinstance(event, StepDone):
                continue
            now = clock()
            measured.append(MeasuredStep(now - last, event.tokens, event.targets, event.loss))
            last = now
            if len(measured) == steps:
                break
    torch.set_num_threads(threads)
    return MeasuredRun(tuple(measured))
