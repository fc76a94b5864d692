"""The planner counts weights exactly as a run does, for every family and strategy."""

import json
from typing import Any

import pytest
from transformers import AutoConfig

from core.catalog.families import FAMILIES
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.models.load import outline
from core.planning.fields import DEFAULTS
from core.planning.parameters import count_parameters, outline_of
from core.spec.base_model import BaseModelSpec
from core.spec.objective import Task
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from core.strategies.attach import attach
from tests.core.tiny import tiny_config, tiny_tokenizer

BASE = BaseModelSpec(id="base", source="/nowhere")
LABELS = 3

SPECS: list[StrategySpec] = [
    LoraSpec(rank=2),
    LoraSpec(rank=2, target_modules="query-value"),
    LoraSpec(rank=2, target_modules="attention", use_rslora=True),
    LoraSpec(rank=2, target_modules="attention+ffn", use_dora=True),
    QloraSpec(rank=4),
    QloraSpec(rank=4, use_dora=True),
    FullSpec(),
    BottleneckSpec(reduction_factor=8),
    BottleneckSpec(reduction_factor=8, placement="houlsby"),
    PrefixSpec(virtual_tokens=5),
    PromptSpec(virtual_tokens=3),
    PromptSpec(virtual_tokens=3, init_text="Answer briefly."),
    Ia3Spec(),
]
CELLS = [(family.model_type, task) for family in FAMILIES.values() for task in family.tasks]


def counted_by_a_run(config: Any, task: Task, strategy: StrategySpec) -> tuple[int, int]:
    labels = LABELS if task == "classification" else None
    model = outline(BASE, config, task, labels)
    adapted = attach(model, strategy, tiny_tokenizer(config.model_type), prepack=False)
    return adapted.total_parameters, adapted.trainable_parameters


def planned(config: Any, task: Task, strategy: StrategySpec) -> tuple[int, int]:
    text = json.loads(json.dumps(config.to_dict()))
    counts = count_parameters(text, task, strategy, LABELS)
    return counts.total, counts.trainable


def test_every_strategy_and_family_is_compared():
    assert {strategy.type for strategy in SPECS} == set(STRATEGIES)
    assert set(DEFAULTS) == set(FAMILIES)


@pytest.mark.parametrize(("model_type", "task"), CELLS)
def test_counts_are_those_of_a_run(model_type, task):
    for strategy in SPECS:
        if model_type == "modernbert" and strategy.type == "prefix":
            continue  # an impossible combination
        config = tiny_config(model_type)
        expected = counted_by_a_run(config, task, strategy)
        assert planned(config, task, strategy) == expected, strategy


@pytest.mark.parametrize(
    ("model_type", "strategy"),
    [
        ("llama", LoraSpec(rank=2, target_modules=("q_proj", "down_proj"))),
        ("llama", LoraSpec(rank=2, rank_pattern={"v_proj": 4, r"layers\.1\..*_proj": 3})),
        ("llama", LoraSpec(rank=2, rank_pattern={r"layers\.1\..*_proj": 3, "v_proj": 4})),
        ("llama", LoraSpec(rank=2, modules_to_save=("lm_head", "embed_tokens"))),
        ("gemma2", LoraSpec(rank=2, modules_to_save=("lm_head",))),
        ("gemma2", LoraSpec(rank=2, modules_to_save=("embed_tokens", "lm_head"))),
        ("qwen3", LoraSpec(rank=2, modules_to_save=("layers.1.mlp", "norm"))),
        ("gpt2", LoraSpec(rank=2, modules_to_save=("wte", "mlp.c_fc"))),
        ("t5", LoraSpec(rank=2, modules_to_save=("shared", "lm_head"))),
        ("bart", Ia3Spec(target_modules=("fc1", "q_proj"), feedforward_modules=("fc1",))),
        ("phi3", Ia3Spec(target_modules=("qkv_proj",), modules_to_save=("lm_head",))),
    ],
)
def test_named_layers_are_counted_as_a_run_counts_them(model_type, strategy):
    config = tiny_config(model_type)
    task = FAMILIES[model_type].own_task
    assert planned(config, task, strategy) == counted_by_a_run(config, task, strategy)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": None, "head_dim": None}),
        ("qwen3", {"attention_bias": True}),
        ("gemma3_text", {"tie_word_embeddings": False}),
        ("gpt2", {"n_inner": None}),
        ("t5", {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 3}),
        ("bart", {"tie_word_embeddings": False, "encoder_layers": 3, "encoder_ffn_dim": 24}),
        ("modernbert", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
        ("modernbert", {"classifier_bias": True}),
    ],
)
def test_options_of_a_config_are_counted(model_type, changes):
    task = FAMILIES[model_type].own_task
    for strategy in (LoraSpec(rank=2), FullSpec(), PrefixSpec(), BottleneckSpec()):
        if model_type == "modernbert" and strategy.type == "prefix":
            continue
        config = tiny_config(model_type, **changes)
        assert planned(config, task, strategy) == counted_by_a_run(config, task, strategy)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_config_without_fields_has_the_defaults_of_its_class(model_type):
    task = FAMILIES[model_type].own_task
    weights = outline(BASE, AutoConfig.for_model(model_type), task, LABELS).num_parameters()
    assert outline_of({"model_type": model_type}, task, LABELS).parameters == weights


def test_names_that_match_nothing_are_refused_with_the_closest():
    for strategy, param in (
        (LoraSpec(target_modules=("q_porj", "v_proj")), "strategy.target_modules"),
        (Ia3Spec(target_modules=("q_porj",)), "strategy.target_modules"),
        (LoraSpec(modules_to_save=("q_porj",)), "strategy.modules_to_save"),
    ):
        with pytest.raises(InvalidRequest, match="q_proj") as caught:
            planned(tiny_config("llama"), "generation", strategy)
        assert (caught.value.param, caught.value.code) == (param, "unknown_target_module")


def test_an_impossible_task_or_config_is_refused():
    with pytest.raises(InvalidRequest) as caught:
        outline_of({"model_type": "bert"}, "generation")
    assert caught.value.param == "task"
    with pytest.raises(InvalidRequest, match="hidden_size") as caught:
        outline_of({"model_type": "llama", "hidden_size": "wide"}, "generation")
    assert caught.value.param == "model"


def test_llama_2_has_the_published_number_of_weights():
    config = {"model_type": "llama"}
    assert count_parameters(config, "generation", FullSpec()).total == 6_738_415_616
    assert count_parameters(config, "generation", LoraSpec()).trainable == 39_976_960
