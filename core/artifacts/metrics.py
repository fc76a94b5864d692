"""The learning curve of a run, and OpenAI's result file."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Losses are means over targets, in nats; None if not measured at this step."""

    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None


def metrics_csv(curve: Iterable[StepMetrics]) -> str:
    """Return `step_metrics.csv` with the columns of OpenAI's result file."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"])
    for entry in curve:
        write(
            [
                entry.step,
                _cell(entry.train_loss),
                _cell(entry.train_accuracy),
                _cell(entry.valid_loss),
                _cell(entry.valid_mean_token_accuracy),
            ]
        )
    return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
