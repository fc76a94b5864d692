import itertools
from typing import get_args

import pytest

from core.catalog.combinations import require_combination, require_mergeable
from core.catalog.families import FAMILIES
from core.catalog.objectives import OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import Task

TASKS = get_args(Task)


def is_possible(*combination):
    try:
        require_combination(*combination)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize(
    ("combination", "param", "words"),
    [
        (("bert", "generation", "supervised", "lora"), "task", "cannot continue a text"),
        (("bert", "generation", "dpo", "lora"), "task", "cannot continue a text"),
        (("modernbert", "seq2seq", "supervised", "lora"), "task", "no decoder"),
        (("llama", "seq2seq", "supervised", "lora"), "task", "has no encoder"),
        (("t5", "classification", "classification", "lora"), "task", "label as the target"),
        (("bart", "generation", "pretraining", "lora"), "task", "use the task seq2seq"),
        (("bart", "seq2seq", "dpo", "lora"), "objective", "Supported objectives: supervised"),
        (("bert", "classification", "pretraining", "full"), "objective", "classification"),
        (("llama", "classification", "supervised", "lora"), "objective", "classification"),
        (("llama", "generation", "classification", "lora"), "objective", "supervised, pretra"),
        (("modernbert", "classification", "classification", "prefix"), "strategy.type", "prompt"),
        (("llama", "generation", "supervised", "full", True), "strategy.type", "are quantized"),
        (("mamba", "generation", "supervised", "lora"), "model", "not supported"),
    ],
)
def test_impossible_combination_is_refused_with_its_reason_and_field(combination, param, words):
    with pytest.raises(InvalidRequest) as raised:
        require_combination(*combination)
    assert raised.value.param == param
    assert words in raised.value.message


def test_every_refusal_of_a_task_has_a_reason():
    for model_type, task in itertools.product(FAMILIES, TASKS):
        if task not in FAMILIES[model_type].tasks:
            with pytest.raises(InvalidRequest, match="does not support the task"):
                require_combination(model_type, task, OBJECTIVES_OF[task][0], "lora")


def test_every_family_can_be_trained_by_every_strategy_but_for_one_pair():
    impossible = {
        (model_type, strategy)
        for model_type, strategy in itertools.product(FAMILIES, STRATEGIES)
        for task in FAMILIES[model_type].tasks
        for objective in OBJECTIVES_OF[task]
        if not is_possible(model_type, task, objective, strategy)
    }
    assert impossible == {("modernbert", "prefix")}


def test_only_full_training_needs_weights_that_are_not_quantized():
    combinations = [
        ("llama", "generation", "supervised", strategy, True) for strategy in STRATEGIES
    ]
    assert [combination[3] for combination in combinations if not is_possible(*combination)] == [
        "full"
    ]


def test_only_a_change_of_weights_that_are_there_can_be_merged():
    mergeable = {(s, q) for s in STRATEGIES for q in (True, False) if can_be_merged(s, q)}
    adapters = {("lora", False), ("qlora", False), ("ia3", False)}
    assert mergeable == {("full", True), ("full", False), *adapters}


def can_be_merged(strategy, stored_quantized):
    try:
        require_mergeable(strategy, stored_quantized)
    except InvalidRequest as error:
        assert (error.param, error.code) == ("form", "not_mergeable")
        return False
    return True
