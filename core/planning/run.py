"""A run as the planner sees it: the shapes of its model, and what its passes process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from core.catalog.describe import is_stored_quantized, loads_quantized
from core.catalog.families import context_length, family_of
from core.catalog.family import Family
from core.catalog.room import within_context
from core.catalog.strategies import STRATEGIES, virtual_tokens
from core.planning.fields import Fields
from core.planning.outline import Outline
from core.planning.parameters import (
    ParameterCounts,
    Trained,
    counts_of,
    outline_of,
    trained_by,
)
from core.planning.workload import Workload
from core.spec.base_model import Quantization
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.precision import NumberFormat
from core.spec.strategy import QloraSpec, StrategySpec
from core.spec.training import OptimizerName, TrainingSpec

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class PlannedRun:
    """A job on a base with `config`, with the rows of `workload`."""

    spec: JobSpec
    config: Mapping[str, Any]
    workload: Workload

    @cached_property
    def fields(self) -> Fields:
        return Fields(self.config)

    @cached_property
    def family(self) -> Family:
        return family_of(self.config["model_type"])

    @cached_property
    def outline(self) -> Outline:
        objective = self.spec.objective
        labels = len(objective.labels) if isinstance(objective, ClassificationSpec) else 0
        return outline_of(self.config, self.spec.task, labels or None)

    @cached_property
    def trained(self) -> Trained:
        kind = self.family.model_type
        return trained_by(self.spec.strategy, self.outline, kind, self.spec.task)

    @cached_property
    def counts(self) -> ParameterCounts:
        return counts_of(self.outline, self.trained)

    @cached_property
    def quantization(self) -> Quantization | None:
        """The format of the linear layers of the blocks in memory; None if they are dense."""
        if is_stored_quantized(self.config):
            return "int8" if self.config["quantization_config"].get("load_in_8bit") else "nf4"
        if loads_quantized(self.spec.base, self.config):
            return self.spec.base.quantization
        return "nf4" if isinstance(self.spec.strategy, QloraSpec) else None

    @cached_property
    def training(self) -> TrainingSpec:
        """The training spec, limited to the context of the base."""
        context = context_length(self.config)
        if context is None:
            return self.spec.training
        return within_context(self.spec.training, self.spec.strategy, context)

    @property
    def optimizer(self) -> OptimizerName:
        asked, usual = self.training.optimizer, STRATEGIES[self.spec.strategy.type].optimizer
        return usual if asked == "auto" else asked

    @property
    def added_tokens(self) -> int:
        """Virtual tokens that every sequence has in the hidden states, too."""
        is_prefix = STRATEGIES[self.spec.strategy.type].hands_over_keys
        return 0 if is_prefix else virtual_tokens(self.spec.strategy)

    @property
    def tokens_of_largest_pass(self) -> int:
        """The tokens of the largest micro-batch, with virtual tokens."""
        step = self.workload.tokens_of_largest_step(self.training.batch_size)
        budget = max(self.training.micro_batch_tokens, self.workload.longest_tokens)
        tokens = min(step, budget)
        mean = self.workload.mean_tokens / self.workload.sequences_per_row
        return math.ceil(tokens * (1 + self.added_tokens / mean))

    @property
    def passes_per_step(self) -> int:
        """About how many micro-batches a step has."""
        batch = min(self.training.batch_size, self.workload.rows)
        budget = max(self.training.micro_batch_tokens, self.workload.longest_tokens)
        return max(1, math.ceil(batch * self.workload.mean_tokens / budget))

    @property
    def most_passes_per_step(self) -> int:
        step = self.workload.tokens_of_largest_step(self.training.batch_size)
        budget = max(self.training.micro_batch_tokens, self.workload.longest_tokens)
        return max(1, math.ceil(step / budget))

    @property
    def steps(self) -> int:
        per_epoch = math.ceil(self.workload.rows / self.training.batch_size)
        return self.training.max_steps or self.training.epochs * per_epoch

    @property
    def tokens_per_step(self) -> float:
        return min(self.training.batch_size, self.workload.rows) * self.workload.mean_tokens

    def with_strategy(self, strategy: StrategySpec) -> "PlannedRun":
        return self._with_spec(strategy=strategy)

    def with_training(self, **changes: Any) -> "PlannedRun":
        """Return the run with other options of training; a shorter limit also cuts its rows."""
        training = self.spec.training.model_copy(update=changes)
        limit = training.max_length * self.workload.sequences_per_row
        workload = replace(
            self.workload,
            mean_tokens=min(self.workload.mean_tokens, limit),
            longest_tokens=min(self.workload.longest_tokens, limit),
        )
        changed = self._with_spec(training=training)
        return replace(changed, workload=workload)

    def _with_spec(self, **changes: Any) -> "PlannedRun":
        return replace(self, spec=self.spec.model_copy(update=changes))


def itemsize(precision: NumberFormat) -> int:
    """Return the bytes of one value."""
    return 4 if precision == "fp32" else 2
