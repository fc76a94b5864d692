"""TRL's experimental trainers, and the log-probabilities that their loss functions take."""

import importlib
import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn


def from_trl(module: str, *names: str) -> tuple[Any, ...]:
    """Return classes of `trl.experimental`, which warns of itself when it is imported."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    found = importlib.import_module(f"trl.experimental.{module}")
    return tuple(getattr(found, name) for name in names)


def recorded_curve(
    classes: tuple[Any, Any],
    folder: Path,
    model: Any,
    tokenizer: Any,
    rows: list[Any],
    **options: Any,
) -> list[tuple[float, float]]:
    """Train with a trainer and a config of TRL; return loss and accuracy of every step.

    Plain AdamW, no shuffling, a rate of 1e-2.
    """
    trainer, config = classes
    recorded = []

    class Recording(trainer):  # type: ignore[misc]
        def get_batch_loss_metrics(self, *arguments: Any, **named: Any) -> Any:
            loss, metrics = super().get_batch_loss_metrics(*arguments, **named)
            recorded.append((loss.item(), metrics["rewards/accuracies"]))
            return loss, metrics

    args = config(output_dir=str(folder), **_PLAIN, **options)
    data = Dataset.from_list(rows)
    Recording(model=model, args=args, train_dataset=data, processing_class=tokenizer).train()
    return recorded


_PLAIN = {
    "num_train_epochs": 1,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "sequential",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def answer_logps(
    trainer: Any, model: nn.Module, rows: Any, *, average: bool
) -> tuple[Tensor, Tensor]:
    """Return TRL's log-probabilities (P,) of the chosen and the rejected answers, one by one."""
    found = []
    for row in (each for pair in rows for each in (pair.chosen, pair.rejected)):
        tokens = torch.tensor([row.tokens])
        labels = tokens.masked_fill(~torch.tensor([row.trained]), -100)
        logits = model(tokens, segment_lengths=(row.length,)).logits
        found.append(trainer.get_batch_logps(logits, labels, average_log_prob=average)[0])
    found_A = torch.stack(found)
    return found_A[::2], found_A[1::2]
