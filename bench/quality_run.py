"""Measures one cell of the quality table in this process, which has to be a new one."""

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import datasets
import torch
import transformers

from bench.auto_data import JsonRow
from bench.memory import reset_peak, status_bytes
from bench.quality_cells import Cell, Outcome, reference, rows_of, score_of, spec_of
from bench.quality_ours import Trained, answers, train_ours
from bench.quality_peer import tokenized, train_peer
from core.errors import TrainingFailed
from core.spec.job import JobSpec


class Meter:
    """CPU time and peak of the resident memory, from its creation until `stop`."""

    def __init__(self) -> None:
        reset_peak()
        self._began_bytes, self._began = status_bytes("VmRSS"), process_time()
        self.seconds, self.peak_bytes = 0.0, 0

    def stop(self) -> None:
        self.seconds = process_time() - self._began
        self.peak_bytes = status_bytes("VmHWM") - self._began_bytes


def measure(cell: Cell) -> Outcome:
    """Train, ask the held-out rows, and score the answers."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    spec, rows = spec_of(cell), rows_of(cell.budget, cell.seed)
    with tempfile.TemporaryDirectory() as folder:
        return _measured(cell, spec, rows.train, rows.held_out, Path(folder))


def _measured(
    cell: Cell,
    spec: JobSpec,
    train: Sequence[JsonRow],
    held_out: Sequence[JsonRow],
    folder: Path,
) -> Outcome:
    tokens, failure = cell.budget.answer_tokens, None
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
    peer_rows = tokenized(spec, file) if cell.side == "peer" else []
    meter = Meter()
    trained = Trained((), lambda rows, tokens: answers(spec, None, rows, tokens, folder))
    try:
        if cell.side == "ours":
            trained = train_ours(spec, train, folder, meter.stop)
        elif cell.side == "peer":
            trained = train_peer(spec, peer_rows, folder, meter.stop)
        found = trained.answer(held_out, tokens)
    except TrainingFailed as error:  # the loss is not finite: all answers count as wrong
        failure, found = error.message, [""] * len(held_out)
    is_right = score_of(cell.budget.task)
    right = [is_right(reference(row), each) for row, each in zip(held_out, found, strict=True)]
    training = spec.training
    assert not isinstance(training.learning_rate, str)
    return Outcome(
        steps=len(trained.losses),
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        seconds=meter.seconds,
        peak_bytes=meter.peak_bytes,
        losses=trained.losses,
        answers=tuple(found),
        right=tuple(right),
        failure=failure,
    )
