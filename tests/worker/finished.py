"""Runs of the real recipe in this process, their bundles in storage: what a worker has in hand
when it asks whether a model is served as it was trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from core.artifacts.archive import pack
from core.parity.asking import Candidate
from core.spec.bundle import BundleRef
from core.spec.events import RunEvent, RunFinished
from core.spec.job import JobSpec
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    KtoSpec,
    ObjectiveSpec,
    OrpoSpec,
    PretrainingSpec,
    SimpoSpec,
    SupervisedSpec,
    Task,
)
from core.spec.parity import ParityReference
from core.spec.run_request import archive_of
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
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.workspace import Workspace
from core.storage.blobs import BlobStore
from core.training.recipe import train
from tests.end_to_end.jobs import KINDS, WORDS, write_files

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CHATS = "".join(
    json.dumps(row) + "\n"
    for word in WORDS
    for row in (
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": f"What is {word}?"},
                {"role": "assistant", "content": f"A {word}."},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": "Yes, größer 🙂."},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": f"Look {word} up."},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {
                                "name": "look_up",
                                "arguments": json.dumps({"word": word}),
                            },
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "found"},
                {"role": "assistant", "content": f"It is {word}."},
            ],
            "tools": TOOLS,
        },
    )
)
"""Several turns, all of which are trained, with and without tools."""

NOT_EVALUATED = EvaluationSpec()
ONE_LABEL = ClassificationSpec(labels=KINDS)
SEVERAL = ClassificationSpec(labels=KINDS, multi_label=True)


@dataclass(frozen=True)
class JobCase:
    """What is trained on which base with which file; the base is a tiny one of its family."""

    strategy: StrategySpec
    family: str = "llama"
    file: str = "chat.jsonl"
    objective: ObjectiveSpec = field(default_factory=SupervisedSpec)
    task: Task = "generation"
    rate: float = 0.01
    forced_first_token: int | None = None


JOBS = {
    "lora": JobCase(LoraSpec(rank=4)),
    "dora, a fully trained module": JobCase(
        LoraSpec(rank=4, target_modules="attention", use_dora=True, modules_to_save=("lm_head",))
    ),
    "qlora": JobCase(QloraSpec(rank=4)),
    "full": JobCase(FullSpec(), rate=1e-3),
    "bottleneck": JobCase(BottleneckSpec(placement="houlsby", reduction_factor=4)),
    "prefix": JobCase(PrefixSpec(virtual_tokens=6), rate=0.1),
    "prompt": JobCase(PromptSpec(virtual_tokens=6), rate=0.1),
    "ia3": JobCase(Ia3Spec(), rate=0.1),
    "gemma 2": JobCase(LoraSpec(rank=4), "gemma2"),
    "dpo": JobCase(LoraSpec(rank=4), file="preferences.jsonl", objective=DpoSpec()),
    "orpo": JobCase(LoraSpec(rank=4), file="preferences.jsonl", objective=OrpoSpec()),
    "simpo": JobCase(LoraSpec(rank=4), file="preferences.jsonl", objective=SimpoSpec()),
    "kto": JobCase(LoraSpec(rank=4), file="rated.csv", objective=KtoSpec()),
    "kto on preferences": JobCase(LoraSpec(rank=4), file="preferences.jsonl", objective=KtoSpec()),
    "pretraining": JobCase(LoraSpec(rank=4), file="texts.jsonl", objective=PretrainingSpec()),
    "prompt and completion": JobCase(LoraSpec(rank=4), file="pairs.csv"),
    "encoder, one label": JobCase(
        LoraSpec(rank=4), "bert", "label.csv", ONE_LABEL, "classification"
    ),
    "decoder, several labels": JobCase(
        PromptSpec(virtual_tokens=6), "llama", "labels.parquet", SEVERAL, "classification", 0.1
    ),
    "t5": JobCase(LoraSpec(rank=4), "t5", "pairs.csv", task="seq2seq"),
    "bart, full": JobCase(FullSpec(), "bart", "pairs.csv", task="seq2seq"),
    "bart, first token forced": JobCase(
        LoraSpec(rank=4), "bart", "pairs.csv", task="seq2seq", forced_first_token=0
    ),
}


@dataclass(frozen=True)
class Finished:
    """A run at its end, with its bundle in storage."""

    spec: JobSpec
    events: list[RunEvent]
    candidate: Candidate

    @property
    def reference(self) -> ParityReference:
        last = self.events[-1]
        assert isinstance(last, RunFinished) and last.reference is not None
        return last.reference


def finish(
    folder: Path,
    store: BlobStore,
    name: str,
    *,
    initializer_range: float = 0.2,
    evaluation: EvaluationSpec = NOT_EVALUATED,
    **hyper: Any,
) -> Finished:
    """Train three steps of a case, in fp32 unless told otherwise, and store the bundle."""
    from tests.core.tiny import save_base

    case = JOBS[name]
    workspace = Workspace(folder=folder / "workspace")
    workspace.folder.mkdir()
    (folder / "files").mkdir()
    files = write_files(folder / "files")
    files["chat.jsonl"].write_text(CHATS, encoding="utf-8")
    workspace.train_file.write_bytes(files[case.file].read_bytes())
    shape = {"initializer_range": initializer_range} if case.family == "llama" else {}
    base = save_base(folder / "base", case.family, **shape)
    if case.forced_first_token is not None:
        config = GenerationConfig.from_pretrained(base.source)
        config.update(forced_bos_token_id=case.forced_first_token)
        config.save_pretrained(base.source)
    hyper = {"max_steps": 3, "learning_rate": case.rate, "warmup_ratio": 0.0} | hyper
    spec = JobSpec(
        base=base,
        task=case.task,
        objective=case.objective,
        strategy=case.strategy,
        training=TrainingSpec(**{"precision": "fp32", "batch_size": 4} | hyper),
        evaluation=evaluation,
        seed=3,
    )
    return run(spec, workspace, store)


def run(spec: JobSpec, workspace: Workspace, store: BlobStore) -> Finished:
    events = list(train(spec, workspace, lambda: False))
    archive = archive_of(workspace.bundle_folder)
    sha256 = pack(workspace.bundle_folder, archive)
    key = f"bundles/{sha256[:12]}/final.zip"
    store.write_file(key, archive)
    candidate = Candidate(spec.base, BundleRef(key=key, sha256=sha256), "default")
    return Finished(spec, events, candidate)
