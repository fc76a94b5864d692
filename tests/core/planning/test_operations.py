"""The planner's operations are those that a pass launches, for every family and strategy."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.catalog.families import FAMILIES, family_of
from core.models.attention import use_packed_attention
from core.models.load import _MODEL_CLASSES
from core.objectives.choose import choose_objective
from core.planning.operations import operations_of_pass
from core.planning.run import PlannedRun
from core.planning.workload import Workload
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    StrategySpec,
)
from core.strategies.attach import attach
from core.training.step import accumulate_gradients
from tests.core.planning.test_activations import LENGTH, rows_for
from tests.core.tiny import tiny_config, tiny_tokenizer

STRATEGIES: Sequence[StrategySpec] = (
    LoraSpec(rank=2),
    LoraSpec(rank=2, use_dora=True),
    FullSpec(),
    BottleneckSpec(reduction_factor=4),
    PrefixSpec(virtual_tokens=4),
    PromptSpec(virtual_tokens=4),
    Ia3Spec(),
)

VIEWS = {
    "_unsafe_view", "alias", "as_strided", "detach", "expand", "permute", "select", "slice",
    "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip
"""Operations that compute nothing."""


class _Counting(TorchDispatchMode):
    launched = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.launched += operation._schema.name.split("::")[1] not in VIEWS
        return operation(*args, **(kwargs or {}))


def job(model_type: str, strategy: StrategySpec) -> JobSpec:
    task = family_of(model_type).own_task
    fields: dict[str, Any] = {"task": task}
    if task == "classification":
        fields["objective"] = ClassificationSpec(labels=("a", "b"))
    base = BaseModelSpec(id="base", source="/nowhere")
    return JobSpec(base=base, strategy=strategy, seed=1, **fields)


def launched(spec: JobSpec, model_type: str, rows: Sequence[Any]) -> int:
    model = _MODEL_CLASSES[spec.task].from_config(tiny_config(model_type))
    if family_of(model_type).layout == "packed":
        use_packed_attention(model)
    tokenizer = tiny_tokenizer(model_type)
    adapted, objective = attach(model, spec.strategy, tokenizer), choose_objective(spec, tokenizer)
    with _Counting() as counted:
        accumulate_gradients(adapted, objective, rows, 4096, 1, lambda: False)
    return counted.launched


@pytest.mark.parametrize("model_type", FAMILIES)
def test_operations_are_those_that_are_launched(model_type: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(model_type).to_dict()
    rows = rows_for(model_type)
    for strategy in STRATEGIES:
        spec = job(model_type, strategy)
        run = PlannedRun(spec, config, Workload(len(rows), LENGTH, LENGTH))
        counted = launched(spec, model_type, rows)
        assert operations_of_pass(run, len(rows)) == pytest.approx(counted, rel=0.25), strategy
