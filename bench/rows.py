"""The benchmark's rows as tokens, shared by all settings of the peer."""

from typing import cast

from bench.data import BenchmarkData
from core.batching.rows import Row
from core.spec.job import JobSpec
from core.training.data import load_rows
from core.training.inputs import inputs_of


def benchmark_rows(data: BenchmarkData, spec: JobSpec) -> list[Row]:
    """Return every row of the file as rendered by our recipe."""
    loaded = load_rows(data.train_file, "training_file", inputs_of(spec, spec.base))
    return cast(list[Row], loaded.rows)
