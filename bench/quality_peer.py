"""The peer of the quality table: TRL, or for classifiers transformers' `Trainer`, with PEFT.

It gets our token ids, loss masks, order of rows, steps, rates and trained modules. Its answers come
from `generate`, for prompts that its own tokenizer renders.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from bench.auto_data import JsonRow
from bench.cases import TrlSetting
from bench.peft_peer import with_strategy
from bench.quality_cells import question
from bench.quality_ours import Trained
from bench.rows import rows_in_order
from bench.trl_peer import arguments_of, quantization_of, train_with_trl
from core.batching.rows import LabelledRow, Row
from core.catalog.families import family_of
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.training.data import load_rows
from core.training.inputs import inputs_of

SETTING = TrlSetting("padded", "fp32")
TEXTS_PER_BATCH = 16


def tokenized(spec: JobSpec, file: Path) -> list[Any]:
    """Return the rows of a file as our recipe renders them."""
    return load_rows(file, "training_file", inputs_of(spec, spec.base)).rows


def train_peer(
    spec: JobSpec, rows: Sequence[Row | LabelledRow], folder: Path, finished: Callable[[], None]
) -> Trained:
    """Train on tokenized rows; call `finished` after the last step."""
    steps = spec.training.epochs * len(rows) // spec.training.batch_size
    if isinstance(spec.objective, ClassificationSpec):
        return _classifier(spec, cast(list[LabelledRow], rows), steps, folder, finished)
    run, model = train_with_trl(
        SETTING, spec, cast(list[Row], rows), steps, process_time, exact=True
    )
    finished()
    writer = Writer(model.eval(), AutoTokenizer.from_pretrained(spec.base.source))
    return Trained(tuple(step.loss for step in run.steps), writer.answers)


@dataclass(frozen=True)
class Writer:
    """Writes greedy answers with transformers."""

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def answers(self, rows: Sequence[JsonRow], answer_tokens: int) -> list[str]:
        """Return the answers in the order of the rows; prompts of one length share a batch."""
        prompts = [self.prompt(row) for row in rows]
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        found: dict[int, str] = {}
        for length, indices in by_length.items():
            ids_BT = torch.tensor([prompts[index] for index in indices])
            written_BT = self.model.generate(
                input_ids=ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                do_sample=False,
                max_new_tokens=answer_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
            texts = self.tokenizer.batch_decode(written_BT[:, length:], skip_special_tokens=True)
            found.update(zip(indices, texts, strict=True))
        return [found[index] for index in range(len(rows))]

    def prompt(self, row: JsonRow) -> list[int]:
        """Return the token ids of the messages before the answer."""
        text = self.tokenizer.apply_chat_template(
            row["messages"][:-1], add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _classifier(
    spec: JobSpec,
    rows: Sequence[LabelledRow],
    steps: int,
    folder: Path,
    finished: Callable[[], None],
) -> Trained:
    assert isinstance(spec.objective, ClassificationSpec)
    labels = spec.objective.labels
    ordered = rows_in_order(rows, spec)
    dataset = Dataset.from_dict(
        {
            "input_ids": [list(row.tokens) for row in ordered],
            "attention_mask": [[1] * row.length for row in ordered],
            "labels": [row.labels[0] for row in ordered],
        }
    )
    quantization = quantization_of(spec.strategy, torch.float32)
    if quantization is not None:  # the head is trained; it is skipped by its whole path
        quantization.llm_int8_skip_modules = [
            path for name in family_of("bert").head for path in (name, f"bert.{name}")
        ]
    torch.manual_seed(spec.seed)
    base = AutoModelForSequenceClassification.from_pretrained(
        spec.base.source,
        num_labels=len(labels),
        dtype=torch.float32,
        quantization_config=quantization,
    )
    tokenizer = AutoTokenizer.from_pretrained(spec.base.source)
    trainer = _RecordingTrainer(
        model=with_strategy(base, spec.strategy),
        args=TrainingArguments(
            **arguments_of(spec, steps, str(folder)), optim="adamw_torch_fused", bf16=False
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    finished()
    model = trainer.model.eval()

    @torch.inference_mode()
    def classify(held_out: Sequence[JsonRow], _: int) -> list[str]:
        found: list[str] = []
        for start in range(0, len(held_out), TEXTS_PER_BATCH):
            texts = [question(row) for row in held_out[start : start + TEXTS_PER_BATCH]]
            logits_BN: Tensor = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
            found += [labels[index] for index in logits_BN.argmax(dim=-1).tolist()]
        return found

    return Trained(tuple(float(loss) for loss in trainer.losses), classify)


class _RecordingTrainer(Trainer):  # type: ignore[misc]
    """Keeps the loss of every step."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.losses: list[Tensor] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        loss = super().compute_loss(model, inputs, *rest, **named)
        self.losses.append(loss.detach())
        return loss

    def log(self, *_arguments: Any, **_named: Any) -> None:
        """Print nothing."""
