"""The cells of the quality table: a base, a task, a strategy, a seed, and who trains.

Only the numbers of rows are chosen here. Epochs, rows of a step and the learning rate are what
`auto` resolves to for these rows, for both sides. No test score has a part in it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.auto_data import JsonRow, Rows, take
from bench.auto_runs import objective_of
from core.catalog.describe import describe
from core.catalog.hyperparameters import Hyperparameters, resolve
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.members import members
from core.spec.objective import ClassificationSpec
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.verdict.tool_calls import is_same_calls

Side = Literal["untrained", "ours", "peer"]
SEEDS = (1, 2, 3)

SOURCES = Path("build") / "auto"
BASES = {
    "tiny": Path(__file__).parents[1] / "core" / "models" / "tiny",
    "smollm2": Path("build") / "real-bases" / "smollm2",
    "minilm": Path("build") / "real-bases" / "minilm",
}
STRATEGIES: dict[str, StrategySpec] = {
    each.model_fields["type"].default: each() for each in members(StrategySpec)
}


@dataclass(frozen=True)
class Budget:
    """A task on a base. Both sides get the same rows, which the seed draws."""

    base: str
    task: str
    rows: int
    held_out: int
    answer_tokens: int = 0
    """After which an answer is cut; 0 for a classifier."""
    longest: int = 10_000
    """Characters of a question; longer rows are left out."""
    epochs: int | None = None
    """None: those of `auto`."""


@dataclass(frozen=True)
class Cell:
    budget: Budget
    strategy: str
    seed: int
    side: Side

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What a cell measured. `seconds` and `peak_bytes` are those of the training alone."""

    steps: int
    epochs: int
    batch_size: int
    learning_rate: float
    seconds: float
    """CPU time from loading the base to the end of the last step."""
    peak_bytes: int
    """Of the resident memory, above what the process had after its imports."""
    losses: tuple[float, ...]
    """Of every step, in nats per target."""
    answers: tuple[str, ...]
    right: tuple[bool, ...]
    failure: str | None = None


BUDGETS = (
    Budget("tiny", "module of a docstring", 64, 100, 12, 160),
    Budget("minilm", "module as a label", 96, 150, longest=160),
    Budget("smollm2", "module of a docstring", 32, 40, 8, 100, epochs=1),
    Budget("minilm", "kind of puzzle", 64, 150, longest=160),
    Budget("tiny", "text reversed", 64, 100, 12),
    Budget("minilm", "call or none", 96, 150, longest=160),
    Budget("tiny", "call of a tool", 96, 60, 96, 160),
    Budget("smollm2", "call of a tool", 32, 24, 64, 160, epochs=1),
    Budget("smollm2", "sums", 32, 40, 8, epochs=1),
)
"""The most important first: each base has one complete task before any has a second."""


@cache
def rows_of(budget: Budget, seed: int) -> Rows:
    """Return disjoint training and held-out rows, drawn by the seed."""
    return take(
        budget.task,
        SOURCES,
        budget.rows,
        budget.held_out,
        seed,
        keep=lambda row: len(question(row)) <= budget.longest,
    )


def question(row: JsonRow) -> str:
    """Return the text that the row asks about."""
    return str(row["text"] if "text" in row else row["messages"][-2]["content"])


def reference(row: JsonRow) -> str:
    """Return the row's label, or its answer."""
    return str(row["label"] if "label" in row else row["messages"][-1]["content"])


def spec_of(cell: Cell) -> JobSpec:
    """Return the job of both sides, with everything but the rows on `auto`, in fp32."""
    budget = cell.budget
    strategy = LoraSpec() if cell.side == "untrained" else STRATEGIES[cell.strategy]
    base = BaseModelSpec(id=budget.base, source=str(BASES[budget.base].absolute()))
    facts = describe(base)
    if facts is None:
        raise SystemExit(f"{base.source} is not there; `make real-bases` makes it.")
    objective = objective_of(rows_of(budget, cell.seed))
    asked = TrainingSpec(max_length=512, precision="fp32", gradient_checkpointing=False)
    if budget.epochs is not None:
        asked = TrainingSpec(**asked.model_dump(exclude_unset=True), epochs=budget.epochs)
    training = resolve(
        Hyperparameters(),
        asked,
        rows=budget.rows,
        strategy=strategy,
        objective=objective,
        hidden_size=facts.hidden_size,
    ).training
    if budget.rows % training.batch_size:
        raise SystemExit(f"{budget.rows} rows are no whole number of steps; change the budget.")
    return JobSpec(
        base=base,
        task="classification" if isinstance(objective, ClassificationSpec) else "generation",
        objective=objective,
        strategy=strategy,
        training=training,
        evaluation=EvaluationSpec(every_steps=10_000_000, keep_best=False),
        seed=cell.seed,
    )


def score_of(task: str) -> Callable[[str, str], bool]:
    """Return what decides whether an answer (second) is the reference (first)."""
    return _is_same_call if task == "call of a tool" else _is_same_text


def _is_same_text(wanted: str, answer: str) -> bool:
    return wanted.strip() == answer.strip()


def _is_same_call(wanted: str, answer: str) -> bool:
    called = _call(answer)
    return called is not None and is_same_calls([{"function": json.loads(wanted)}], [called])


def _call(answer: str) -> JsonRow | None:
    """Return an answer as a tool call; None if it is no call."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    is_call = isinstance(found, dict) and found.keys() == {"name", "arguments"}
    return {"function": found} if is_call else None
