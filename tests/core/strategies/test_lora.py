import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from core.errors import InvalidRequest
from core.spec.strategy import LoraSpec
from core.strategies.attach import attach


def llama2_7b():
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("query-value", 8_388_608),
        ("attention", 16_777_216),
        ("attention+ffn", 32_243_712),
        ("all-linear", 39_976_960),
    ],
)
def test_llama2_7b_has_the_known_number_of_trainable_parameters(preset, parameters):
    attached = attach(llama2_7b(), LoraSpec(rank=16, target_modules=preset), None)
    assert attached.trainable_parameters == parameters
    trainable = (p.numel() for p in attached.model.parameters() if p.requires_grad)
    assert sum(trainable) == parameters
    assert attached.total_parameters == 6_738_415_616 + parameters


def test_one_square_matrix_has_the_known_number_of_parameters():
    name = "layers.0.self_attn.q_proj"
    attached = attach(llama2_7b(), LoraSpec(rank=16, target_modules=(name,)), None)
    assert attached.trainable_parameters == 131_072


def test_module_names_are_taken_as_peft_takes_them(tiny_model):
    for names, layers in [(("q_proj",), 2), (("layers.1.mlp.up_proj", "v_proj"), 3)]:
        attached = attach(tiny_model(), LoraSpec(target_modules=names), None)
        assert len(attached.trainable) == 2 * layers
        assert sorted(attached.config.target_modules) == sorted(names)


@pytest.mark.parametrize(
    ("name", "nearest"), [("query_proj", "q_proj"), ("oproj", "o_proj"), ("mlp", "up_proj")]
)
def test_unknown_module_is_refused_with_the_nearest_names(tiny_model, name, nearest):
    with pytest.raises(InvalidRequest, match=nearest) as caught:
        attach(tiny_model(), LoraSpec(target_modules=("v_proj", name)), None)
    error = caught.value
    assert (error.param, error.code) == ("strategy.target_modules", "unknown_target_module")
    assert repr(name) in error.message


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_vocabulary_tables_are_refused_with_what_to_do_instead(tiny_model, name):
    with pytest.raises(InvalidRequest, match="modules_to_save") as caught:
        attach(tiny_model(), LoraSpec(target_modules=(name,)), None)
    assert caught.value.code == "unsupported_target_module"


def test_empty_list_of_modules_is_refused(tiny_model):
    with pytest.raises(InvalidRequest, match="empty"):
        attach(tiny_model(), LoraSpec(target_modules=()), None)


def test_nothing_but_the_adapter_is_trained(tiny_model):
    attached = attach(tiny_model(), LoraSpec(), None)
    trained = {id(p) for p in attached.parameters}
    for parameter in attached.model.parameters():
        assert parameter.requires_grad == (id(parameter) in trained)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_pattern_that_is_no_regular_expression_is_refused_with_the_spec(field):
    with pytest.raises(ValidationError, match=r"'q\(' is not a regular expression"):
        LoraSpec(**{field: {"q(": 2}})
