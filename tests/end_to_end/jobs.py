"""One job of every strategy, objective and task: what is trained on which base with which file."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.end_to_end.service import BASE_MODEL, DATASET

STEPS = 3

WORDS = ("cat", "red", "seven", "dog", "blue", "nine", "fox", "green", "four")
KINDS = ("animal", "colour", "number")
CHAT = [{"role": "user", "content": "What is a cat?"}]


@dataclass(frozen=True)
class JobCase:
    """A job to submit, and what to ask its model: `chat`, `text` or, of a classifier, nothing."""

    file: str
    strategy: dict[str, Any]
    model: str = BASE_MODEL
    rate: float = 0.01
    method: dict[str, Any] = field(default_factory=dict)
    asked: tuple[str, ...] = ("chat", "text")

    def request(self, file_id: str) -> dict[str, Any]:
        """Return the arguments of the stock client's `jobs.create`."""
        training = {
            "max_steps": STEPS,
            "learning_rate": self.rate,
            "warmup_ratio": 0.0,
            "precision": "fp32",
        }
        return {
            "model": self.model,
            "training_file": file_id,
            "seed": 5,
            **({"method": self.method} if self.method else {}),
            "extra_body": {"strategy": self.strategy, "training": training},
        }


JOBS = {
    "lora": JobCase(
        "chat.jsonl",
        {
            "type": "lora",
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.1,
            "use_rslora": True,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"q_proj": 8},
            "alpha_pattern": {"layers.0.self_attn.v_proj": 16},
        },
    ),
    "dora": JobCase(
        "chat.jsonl",
        {
            "type": "lora",
            "rank": 4,
            "target_modules": "attention",
            "use_dora": True,
            "modules_to_save": ["norm"],
        },
    ),
    "qlora": JobCase("chat.jsonl", {"type": "qlora", "rank": 4}),
    "full": JobCase("chat.jsonl", {"type": "full"}, rate=1e-3),
    "bottleneck": JobCase(
        "chat.jsonl", {"type": "bottleneck", "placement": "houlsby", "reduction_factor": 8}
    ),
    "prefix": JobCase("chat.jsonl", {"type": "prefix", "num_virtual_tokens": 6}, rate=0.1),
    "prompt": JobCase(
        "chat.jsonl",
        {"type": "prompt", "virtual_tokens": 6, "init_text": "Name the module."},
        rate=0.1,
    ),
    "ia3": JobCase("chat.jsonl", {"type": "ia3"}, rate=0.03),
    "dpo": JobCase(
        "preferences.jsonl",
        {"type": "lora", "rank": 4},
        rate=0.002,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}},
    ),
    "orpo": JobCase(
        "preferences.jsonl",
        {"type": "lora", "rank": 4},
        method={"type": "orpo", "orpo": {"hyperparameters": {"beta": 0.2}}},
    ),
    "simpo": JobCase(
        "preferences.jsonl",
        {"type": "lora", "rank": 4},
        rate=0.002,
        method={"type": "simpo", "simpo": {"hyperparameters": {"beta": 2.5, "gamma": 1.2}}},
    ),
    "kto": JobCase(
        "rated.csv",
        {"type": "lora", "rank": 4},
        method={"type": "kto", "kto": {"hyperparameters": {"undesirable_weight": 1.5}}},
    ),
    "pretraining": JobCase("texts.jsonl", {"type": "lora", "rank": 4}, asked=("text",)),
    "encoder, one label": JobCase("label.csv", {"type": "lora", "rank": 4}, "tiny/bert", asked=()),
    "encoder, several labels": JobCase("labels.parquet", {"type": "full"}, "tiny/bert", asked=()),
    "decoder, one label": JobCase("label.csv", {"type": "prompt"}, "tiny/llama", 0.1, asked=()),
    "decoder, several labels": JobCase("labels.parquet", {"type": "lora"}, "tiny/llama", asked=()),
    "seq2seq": JobCase("pairs.csv", {"type": "lora", "rank": 4}, "tiny/t5"),
    "seq2seq, full": JobCase("pairs.csv", {"type": "full"}, "tiny/bart"),
}


def write_files(folder: Path) -> dict[str, Path]:
    """Write every file that a case names, in all dataset and file formats."""
    writers: dict[str, Callable[[Path], None]] = {
        "chat.jsonl": _write_chat,
        "preferences.jsonl": _write_preferences,
        "rated.csv": _write_rated,
        "texts.jsonl": _write_texts,
        "label.csv": _write_label,
        "labels.parquet": _write_labels,
        "pairs.csv": _write_pairs,
    }
    for name, write in writers.items():
        write(folder / name)
    return {name: folder / name for name in writers}


def _write_chat(path: Path) -> None:
    lines = (DATASET / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines[:40] if len(line) < 600), encoding="utf-8")


def _write_preferences(path: Path) -> None:
    """OpenAI's own form."""
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"What is {word}?"}], "tools": []},
            "preferred_output": [{"role": "assistant", "content": f"A {_kind(word)}."}],
            "non_preferred_output": [{"role": "assistant", "content": f"No {word} at all."}],
        }
        for word in WORDS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_rated(path: Path) -> None:
    rows = [(f"say {word}", word * 2, str(index % 2 == 0)) for index, word in enumerate(WORDS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion", "label"), *rows])


def _write_texts(path: Path) -> None:
    rows = [{"text": f"{word} is the name of a {_kind(word)}."} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_label(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((f"this is {word}", _kind(word)) for word in WORDS)]
        )


def _write_labels(path: Path) -> None:
    texts = [f"{a} and {b}" for a, b in pairwise(WORDS)]
    labels = [[_kind(a), _kind(b)] for a, b in pairwise(WORDS)]
    table = pyarrow.table({"text": [*texts, "nothing"], "labels": [*labels, []]})
    pyarrow.parquet.write_table(table, path)


def _write_pairs(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("prompt", "completion"), *((f"say {word}", word * 2) for word in WORDS)]
        )


def _kind(word: str) -> str:
    return KINDS[WORDS.index(word) % len(KINDS)]
