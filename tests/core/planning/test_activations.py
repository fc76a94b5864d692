"""The planner's activations are what autograd keeps, for every family and strategy."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from core.catalog.families import FAMILIES, family_of
from core.models.attention import use_packed_attention
from core.models.load import _MODEL_CLASSES
from core.objectives.choose import choose_objective
from core.planning.activations import Pass, activations
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
from core.batching.rows import LabelledRow, Row, SourceTargetRow
from tests.core.planning.saved import saved_bytes
from tests.core.tiny import DECODERS, ENCODERS, tiny_config, tiny_tokenizer

SIZE = {"llama": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6}}
LENGTH, ROWS = 64, 4


def rows_for(model_type: str) -> list[Any]:
    tokens = tuple(5 + index % 200 for index in range(LENGTH))
    if model_type in DECODERS:
        return [Row(line, tokens, (False, *[True] * (LENGTH - 1))) for line in range(ROWS)]
    if model_type in ENCODERS:
        return [LabelledRow(line, tokens, (line % 2,)) for line in range(ROWS)]
    half = tokens[: LENGTH // 2]
    return [SourceTargetRow(line, half, half) for line in range(ROWS)]


def compared(model_type: str, strategy: StrategySpec, dtype: torch.dtype, **changes: Any):
    """Return (predicted, counted) bytes."""
    family = family_of(model_type)
    task = family.own_task
    fields: dict[str, Any] = {"task": task}
    if task == "classification":
        fields["objective"] = ClassificationSpec(labels=("a", "b"))
    base = BaseModelSpec(id="base", source="/nowhere")
    spec = JobSpec(base=base, strategy=strategy, seed=1, **fields)
    config = tiny_config(model_type, **changes)
    torch.manual_seed(0)
    model = _MODEL_CLASSES[task].from_config(config).to(dtype)
    if family.layout == "packed":
        use_packed_attention(model)
    tokenizer = tiny_tokenizer(model_type)
    adapted = attach(model, strategy, tokenizer)
    objective = choose_objective(spec, tokenizer)
    rows = rows_for(model_type)
    counted = saved_bytes(adapted, objective, rows)
    run = PlannedRun(spec, json.loads(json.dumps(config.to_dict())), Workload(ROWS, LENGTH, LENGTH))
    precision = "fp32" if dtype == torch.float32 else "bf16"
    added = run.added_tokens
    one = Pass(ROWS * (LENGTH + added), LENGTH + added, precision, "cpu")
    return activations(run, one).kept(False), counted


if __name__ == "__main__":
    for model_type in FAMILIES:
        for strategy in (
            LoraSpec(rank=2), LoraSpec(rank=2, use_dora=True), LoraSpec(rank=2, dropout=0.1), LoraSpec(rank=2, target_modules="query-value"), FullSpec(), BottleneckSpec(reduction_factor=4), PrefixSpec(virtual_tokens=4),
            PromptSpec(virtual_tokens=4), Ia3Spec(),
        ):
            if model_type == "modernbert" and strategy.type == "prefix":
                continue
            for dtype in (torch.float32, torch.bfloat16):
                a, b = compared(model_type, strategy, dtype)
                print(f"{model_type:12s} {strategy.type:10s} {str(dtype)[6:]:9s} {a:10.0f} {b:10d} {a/b:.3f}")
