"""Runs one short training for `bench.auto` and returns its held-out score.

Every result is stored at once and never measured twice.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.auto_data import JsonRow, Rows, take
from core.errors import TrainingFailed
from core.spec.base_model import BaseModelSpec
from core.spec.events import Evaluated, StepDone
from core.spec.job import JobSpec
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    ObjectiveSpec,
    PretrainingSpec,
    SupervisedSpec,
)
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.workspace import Workspace
from core.training.recipe import train

UNTRAINED_RATE = 1e-12
"""The rate of the run that measures the base: one step without a change."""


@dataclass(frozen=True)
class Case:
    """A dataset, a base and a strategy, with numbers of training and held-out rows."""

    dataset: str
    base: str
    rows: int
    held_out: int = 100
    strategy: StrategySpec = field(default_factory=LoraSpec)
    seed: int = 1

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self) | {"strategy": self.strategy.model_dump(mode="json")}


@dataclass(frozen=True)
class Score:
    """The held-out loss after the last step, in nats per target, and the accuracy."""

    loss: float
    accuracy: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Bench:
    """The folders of bases and sources, and the file of results."""

    bases: dict[str, Path]
    sources: Path
    results: Path

    def run(self, case: Case, hyper: dict[str, Any]) -> Score:
        """Train, or return the stored result; a non-finite loss counts as infinite."""
        key = {"case": case.key, "hyper": hyper}
        for line in self._lines():
            if line["key"] == key:
                return Score(**line["score"])
        score = self._measured(case, hyper)
        with self.results.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"key": key, "score": asdict(score)}) + "\n")
        return score

    def has(self, case: Case, hyper: dict[str, Any]) -> bool:
        """Whether the result of this run is stored."""
        key = {"case": case.key, "hyper": hyper}
        return any(line["key"] == key for line in self._lines())

    def untrained(self, case: Case) -> Score:
        """Return the score of the base, for a classifier with its initial head."""
        return self.run(case, {"max_steps": 1, "batch_size": 1, "learning_rate": UNTRAINED_RATE})

    def _lines(self) -> list[dict[str, Any]]:
        if not self.results.exists():
            return []
        return [json.loads(line) for line in self.results.read_text(encoding="utf-8").splitlines()]

    def _measured(self, case: Case, hyper: dict[str, Any]) -> Score:
        rows = take(case.dataset, self.sources, case.rows, case.held_out, case.seed)
        started, last, step = time.monotonic(), None, 0
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(folder=Path(folder))
            _write(workspace.train_file, rows.train)
            _write(workspace.validation_file, rows.held_out)
            try:
                for event in train(self._spec(case, rows, hyper), workspace, lambda: False):
                    if isinstance(event, StepDone):
                        step = event.step
                    if isinstance(event, Evaluated):
                        last = event
                        break  # bundle and checkpoints are not needed
            except TrainingFailed as error:
                if error.code != "loss_nonfinite":
                    raise
        loss, accuracy = (last.loss, last.accuracy) if last else (float("inf"), 0.0)
        return Score(loss, accuracy, step, time.monotonic() - started)

    def _spec(self, case: Case, rows: Rows, hyper: dict[str, Any]) -> JobSpec:
        objective = objective_of(rows)
        return JobSpec(
            base=BaseModelSpec(id=case.base, source=str(self.bases[case.base].absolute())),
            task="classification" if isinstance(objective, ClassificationSpec) else "generation",
            objective=objective,
            strategy=case.strategy,
            training=TrainingSpec(max_length=512, precision="fp32").model_copy(update=hyper),
            evaluation=EvaluationSpec(every_steps=10_000_000, keep_best=False),
            seed=case.seed,
        )


def objective_of(rows: Rows) -> ObjectiveSpec:
    """Return the API's choice for these rows."""
    first = rows.train[0]
    if "label" in first:
        labels = {row["label"] for row in rows.train + rows.held_out}
        return ClassificationSpec(labels=tuple(sorted(labels)))
    if "preferred_output" in first:
        return DpoSpec()
    return PretrainingSpec() if "text" in first else SupervisedSpec()


def _write(path: Path, rows: list[JsonRow]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
