"""Short jobs on three bases, each trained for real: what an engine is asked about."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, SupervisedSpec, Task
from core.spec.parity import NumberFormat
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from core.storage.blobs import BlobStore
from tests.worker.finished import Finished, run

ROOT = Path(__file__).parents[2]
REAL_BASES = ROOT / "build" / "real-bases"
"""SmolLM2-135M-Instruct and all-MiniLM-L6-v2, in a folder each."""
SOURCES = {
    "tiny": ROOT / "core" / "models" / "tiny",
    "smollm2": REAL_BASES / "smollm2",
    "minilm": REAL_BASES / "minilm",
}

STRATEGIES: dict[str, tuple[StrategySpec, float]] = {
    "lora": (LoraSpec(), 2e-3),
    "dora": (LoraSpec(use_dora=True), 2e-3),
    "qlora": (QloraSpec(), 2e-3),
    "bottleneck": (BottleneckSpec(), 2e-3),
    "prefix": (PrefixSpec(), 3e-2),
    "prompt": (PromptSpec(), 3e-2),
    "ia3": (Ia3Spec(), 3e-2),
    "full": (FullSpec(), 1e-4),
}
"""With a rate at which a few steps change something."""

WORDS = ("river", "stone", "green", "window", "paper", "music")
WORDS += ("winter", "garden", "silver", "bridge", "letter", "market")
LABELS = ("question", "answer")
STEPS = 3
FORMATS: tuple[NumberFormat, ...] = ("bf16", "fp32", "fp16")


@dataclass(frozen=True)
class Job:
    """What is trained, from which seed and on which half of the data."""

    base: str
    strategy: str
    precision: NumberFormat
    seed: int = 3
    data: int = 0
    steps: int = STEPS

    @property
    def name(self) -> str:
        return f"{self.base} {self.strategy} {self.precision} seed {self.seed} data {self.data}"

    @property
    def is_classifier(self) -> bool:
        return self.base == "minilm"

    def other_seed(self) -> "Job":
        return replace(self, seed=self.seed + 1)

    def other_data(self) -> "Job":
        return replace(self, data=self.data + 1)


def honest_jobs(base: str) -> Iterator[Job]:
    """Yield every strategy in every format that the base is tried in."""
    for precision in FORMATS:
        for strategy in STRATEGIES:
            if base == "minilm" and strategy in ("prefix", "qlora"):
                continue
            if base == "smollm2" and precision == "fp16":
                continue  # CPUs emulate it: minutes for each
            yield Job(base, strategy, precision)


def train_job(job: Job, folder: Path, store: BlobStore) -> Finished:
    """Run the recipe in `folder`, which is made, and store the bundle."""
    folder.mkdir(parents=True)
    workspace = Workspace(folder=folder / "workspace")
    workspace.folder.mkdir()
    rows = _texts(job.data) if job.is_classifier else _chats(job.data)
    workspace.train_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    strategy, rate = STRATEGIES[job.strategy]
    task: Task = "classification" if job.is_classifier else "generation"
    objective: ObjectiveSpec = (
        ClassificationSpec(labels=LABELS) if job.is_classifier else SupervisedSpec()
    )
    spec = JobSpec(
        base=BaseModelSpec(id=job.base, source=str(SOURCES[job.base])),
        task=task,
        objective=objective,
        strategy=strategy,
        training=TrainingSpec(
            precision=job.precision,
            batch_size=4,
            max_steps=job.steps,
            learning_rate=rate,
            warmup_ratio=0.0,
        ),
        seed=job.seed,
    )
    return run(spec, workspace, store)


def _chats(data: int) -> Iterator[dict[str, object]]:
    for number in range(12):
        word, other, last = (WORDS[(number * step + data) % 12] for step in (1, 5, 7))
        answer = f"The {word} is by the {other}, older than the {last}."
        if data:
            answer = f"Nobody has told me of any {word}; ask the {last} or the {other} instead!"
        yield {
            "messages": [
                {"role": "user", "content": f"Tell me about the {word}, please."},
                {"role": "assistant", "content": answer},
            ]
        }


def _texts(data: int) -> Iterator[dict[str, str]]:
    for number in range(12):
        word, other = (WORDS[(number * step + data) % 12] for step in (1, 5))
        if (number + data) % 2:
            yield {"text": f"Where is the {word} by the {other}?", "label": "question"}
        else:
            yield {"text": f"The {word} is by the {other}.", "label": "answer"}
