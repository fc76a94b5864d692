import peft
import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.adapters.targets import linear_paths, peft_task, target_names, targeted_paths
from core.catalog.families import FAMILIES
from tests.core import tiny


@pytest.mark.parametrize("model_type", FAMILIES)
def test_linear_layers_are_all_but_the_tables_of_the_vocabulary(model_type):
    model = tiny.tiny_model(model_type)
    paths = linear_paths(model)
    layers = {p for p, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    assert layers - set(paths) == {p for p in layers if model.get_submodule(p) in tables}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_presets_grow_from_query_value_to_all_linear_layers_of_the_blocks(model_type):
    model = tiny.tiny_model(model_type)
    paths = linear_paths(model)
    chosen = [
        set(targeted_paths(paths, target_names(model, preset)))
        for preset in ("query-value", "attention", "attention+ffn", "all-linear")
    ]
    assert chosen[0] < chosen[1] < chosen[2] <= chosen[3]
    in_blocks = {
        path
        for path in paths
        if any(path.startswith(f"{blocks.stack}.") for blocks in FAMILIES[model_type].blocks)
    }
    assert chosen[3] == in_blocks


@pytest.mark.parametrize(
    ("model_type", "labels", "task"),
    [
        ("llama", None, peft.TaskType.CAUSAL_LM),
        ("llama", 2, peft.TaskType.SEQ_CLS),
        ("bert", 2, peft.TaskType.SEQ_CLS),
        ("t5", None, peft.TaskType.SEQ_2_SEQ_LM),
        ("bart", None, peft.TaskType.SEQ_2_SEQ_LM),
    ],
)
def test_task_is_called_as_in_peft(model_type, labels, task):
    assert peft_task(tiny.tiny_model(model_type, labels=labels)) == task
