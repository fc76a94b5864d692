"""The facts about each family hold in a model of it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.catalog.families import (
    FAMILIES,
    RELATIVE_CONTEXT_LENGTH,
    context_length,
    family_of,
    hidden_size,
)
from core.errors import InvalidRequest
from tests.core import tiny

MODEL_TYPES = sorted(FAMILIES)
GATED_T5 = {"feed_forward_proj": "gated-gelu"}


def model_of(model_type):
    return tiny.tiny_model(model_type, **(GATED_T5 if model_type == "t5" else {}))


def matched(model, names):
    """Paths of modules that PEFT would adapt, which it matches by the last parts of the path."""
    return {
        path
        for path, _ in model.named_modules()
        if any(path == name or path.endswith(f".{name}") for name in names)
    }


def linear_layers_of_blocks(model, family):
    stacks = tuple(f"{blocks.stack}." for blocks in family.blocks)
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and path.startswith(stacks)
    }


def test_a_family_has_a_head_for_labels_if_it_can_classify():
    for family in FAMILIES.values():
        classifies = "classification" in family.tasks
        assert (bool(family.head), family.class_head is not None) == (classifies, classifies)


def test_an_unknown_family_is_refused():
    with pytest.raises(InvalidRequest, match=r"'mamba' are not supported. Supported types: bart"):
        family_of("mamba")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_all_linear_is_every_linear_layer_of_the_blocks(model_type):
    model, family = model_of(model_type), family_of(model_type)
    assert matched(model, family.layers.preset("all-linear")) == linear_layers_of_blocks(
        model, family
    )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_presets_contain_one_another_and_name_only_linear_layers(model_type):
    model, family = model_of(model_type), family_of(model_type)
    sizes = []
    before = set()
    for preset in ("query-value", "attention", "attention+ffn", "all-linear"):
        paths = matched(model, family.layers.preset(preset))
        assert before <= paths
        sizes.append(len(paths))
        before = paths
    assert 0 < sizes[0] < sizes[1] < sizes[2] <= sizes[3]
    gated = any("gate_proj" in path or "wi_0" in path for path in before)
    assert (sizes[2] < sizes[3]) == gated


def test_the_first_t5_has_all_its_layers_in_the_preset():
    model, family = tiny.tiny_model("t5"), family_of("t5")
    paths = matched(model, family.layers.preset("attention+ffn"))
    assert paths == linear_layers_of_blocks(model, family)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("preset", ["query-value", "attention+ffn"])
def test_peft_finds_the_same_layers(model_type, preset):
    model, names = model_of(model_type), family_of(model_type).layers.preset(preset)
    expected = matched(model, names)
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=list(names), fan_in_fan_out=model_type == "gpt2")
    )
    found = {path.removeprefix("base_model.model.") for path in adapted.targeted_module_names}
    assert found == expected


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS])
def test_head_is_what_a_classifier_adds_to_the_base(model_type):
    base = tiny.tiny_model(model_type).base_model
    classifier = tiny.tiny_model(model_type, labels=3)
    backbone = {f"{classifier.base_model_prefix}.{name}" for name, _ in base.named_parameters()}
    new = {name for name, _ in classifier.named_parameters()} - backbone
    heads = matched(classifier, family_of(model_type).head)
    assert len(heads) == len(family_of(model_type).head)
    assert new == {name for name in new if name.startswith(tuple(f"{head}." for head in heads))}
    assert new == {
        f"{head}.{name}"
        for head in heads
        for name, _ in classifier.get_submodule(head).named_parameters()
    }


def without_output(module, inputs, output):
    if isinstance(output, tuple):
        return torch.zeros_like(output[0]), *output[1:]
    return torch.zeros_like(output)


def run(model, family):
    tokens = torch.arange(5, 15)[None]
    target = {"decoder_input_ids": tokens[:, :4]} if family.kind == "encoder-decoder" else {}
    return model(input_ids=tokens, **target)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_blocks_name_what_is_added_to_the_residual_stream(model_type):
    """With both outputs at zero a block is the identity, up to its norms and cross-attention."""
    model, family = model_of(model_type), family_of(model_type)
    states = []

    def keep(module, inputs, output):
        states.append((inputs[0], output[0] if isinstance(output, tuple) else output))

    for blocks in family.blocks:
        stack = model.get_submodule(blocks.stack)
        assert len(stack) == 2
        for block in stack:
            block.get_submodule(blocks.attention).register_forward_hook(without_output)
            block.get_submodule(blocks.feed_forward).register_forward_hook(without_output)
        stack[0].register_forward_hook(keep)
    with torch.no_grad():
        run(model, family)
    assert len(states) == len(family.blocks)
    before, after = states[0]
    if model_type in ("bert", "bart"):  # they normalize the sum, once after each of the two
        before = before - before.mean(-1, keepdim=True)
        before = before / before.var(-1, keepdim=True, unbiased=False).sqrt()
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_limit_of_a_config_is_that_of_the_model(model_type):
    model, family = tiny.tiny_model(model_type), family_of(model_type)
    limit = context_length(model.config.to_dict())
    if family.positions is None:
        assert limit == RELATIVE_CONTEXT_LENGTH
        limit = 600  # longer than any that T5 was trained on
    else:
        assert limit == 256
    tokens = torch.full((1, limit), 7)
    target = {"decoder_input_ids": tokens[:, :4]} if family.kind == "encoder-decoder" else {}
    with torch.no_grad():
        assert model(input_ids=tokens, **target)[0].isfinite().all()
        if model_type in ("gpt2", "bert", "bart"):  # their positions are a table
            with pytest.raises(Exception, match=r"out of (bounds|range)|expanded size"):
                model(input_ids=torch.full((1, limit + 1), 7), **target)


def test_limit_is_unknown_where_the_config_does_not_say_it():
    assert context_length({"model_type": "gpt2", "max_position_embeddings": 9}) is None
    assert context_length({"model_type": "gpt2", "n_positions": 9}) == 9


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_hidden_size_is_that_of_the_embeddings(model_type):
    model = model_of(model_type)
    embeddings = model.get_input_embeddings().weight
    assert hidden_size(model.config.to_dict()) == embeddings.shape[1]


def test_a_config_that_does_not_say_its_width_leaves_it_open():
    assert hidden_size({"model_type": "llama"}) is None
    assert hidden_size({"model_type": "llama", "hidden_size": "256"}) is None
