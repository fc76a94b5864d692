"""The benchmark's rows as tokens, shared by all settings of the peer."""

from collections.abc import Sequence
from typing import TypeVar, cast

from bench.data import BenchmarkData
from core.batching.order import steps_of_epoch
from core.batching.rows import Row
from core.spec.job import JobSpec
from core.training.data import load_rows
from core.training.inputs import inputs_of

AnyRow = TypeVar("AnyRow")


def benchmark_rows(data: BenchmarkData, spec: JobSpec) -> list[Row]:
    """Return every row of the file as rendered by our recipe."""
    loaded = load_rows(data.train_file, "training_file", inputs_of(spec, spec.base))
    return cast(list[Row], loaded.rows)


def rows_in_order(rows: Sequence[AnyRow], spec: JobSpec) -> list[AnyRow]:
    """Return the rows of all epochs in the order of our recipe.

    Consecutive batches are the steps of our recipe if the last one of an epoch is full.
    """
    size, epochs = spec.training.batch_size, range(1, spec.training.epochs + 1)
    steps = [step for epoch in epochs for step in steps_of_epoch(spec.seed, epoch, len(rows), size)]
    return [rows[index] for step in steps for index in step]
