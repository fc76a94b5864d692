"""The benchmark's rows as tokens, shared by all settings of the peer."""

from typing import cast

from bench.data import BenchmarkData
from core.batching.rows import Row
from core.models.load import load_config, load_tokenizer
from core.objectives.supervised import Supervised
from core.spec.job import JobSpec
from core.training.data import load_rows


def benchmark_rows(data: BenchmarkData, spec: JobSpec) -> list[Row]:
    """Return every row of the file as rendered by our recipe."""
    tokenizer, config = load_tokenizer(spec.base), load_config(spec.base)
    objective = Supervised(tokenizer)
    loaded = load_rows(data.train_file, "training_file", objective, tokenizer, config, spec)
    return cast(list[Row], loaded.rows)
