"""A run's learning curve out of its events, and OpenAI's result file made of it."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.spec.events import Evaluated, RunEvent, StepDone


@dataclass(frozen=True)
class StepMetrics:
    """Losses are mean nats per labelled token; None where nothing was measured at this step."""

    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None


def learning_curve(history: Iterable[RunEvent]) -> tuple[StepMetrics, ...]:
    """One entry per step, in order; of steps repeated by a resumed run the last one counts."""
    by_step: dict[int, StepMetrics] = {}
    for event in history:
        if isinstance(event, StepDone):
            before = by_step.get(event.step, StepMetrics(event.step))
            by_step[event.step] = replace(
                before, train_loss=event.loss, train_accuracy=event.accuracy
            )
        elif isinstance(event, Evaluated):
            before = by_step.get(event.step, StepMetrics(event.step))
            by_step[event.step] = replace(
                before, valid_loss=event.loss, valid_mean_token_accuracy=event.accuracy
            )
    return tuple(by_step[step] for step in sorted(by_step))


def metrics_csv(history: Iterable[RunEvent]) -> str:
    """The `step_metrics.csv` that OpenAI attaches to a finished job, column for column."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"])
    for entry in learning_curve(history):
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
