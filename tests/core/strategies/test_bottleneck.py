import json

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from core.catalog.families import FAMILIES
from core.errors import InvalidRequest
from core.spec.strategy import BottleneckSpec
from core.strategies.attach import attach
from tests.core.tiny import DECODERS, ENCODER_DECODERS, ENCODERS

FAMILY_NAMES = [*DECODERS, *ENCODERS, *ENCODER_DECODERS]
SPEC = BottleneckSpec(placement="houlsby", reduction_factor=8, activation="gelu")


def logits(model):
    tokens_BT = torch.arange(20, 32).view(2, 6)
    named = {"decoder_input_ids": tokens_BT[:, :4]} if model.config.is_encoder_decoder else {}
    return model(input_ids=tokens_BT, attention_mask=torch.ones_like(tokens_BT), **named).logits


def plain_adapters(model, state):
    """Hang the formula behind the modules of a base as forward hooks, as anyone could."""

    def adapted(h, path):
        down, down_bias, up, up_bias = (
            state[f"base_model.model.{path}.adapter_{side}.{name}"]
            for side in ("down", "up")
            for name in ("weight", "bias")
        )
        return h + nn.functional.gelu(h @ down.t() + down_bias) @ up.t() + up_bias

    def hook(path):
        def run(module, arguments, output):
            if isinstance(output, tuple):
                return adapted(output[0], path), *output[1:]
            return adapted(output, path)

        return run

    for blocks in FAMILIES[model.config.model_type].blocks:
        for index, block in enumerate(model.get_submodule(blocks.stack)):
            for name in (blocks.attention, blocks.feed_forward):
                path = f"{blocks.stack}.{index}.{name}"
                block.get_submodule(name).register_forward_hook(hook(path))


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_logits_and_gradients_equal_plain_pytorch(tiny_model, model_type):
    labels = 3 if model_type in ENCODERS else None
    reference = tiny_model(model_type, labels=labels).requires_grad_(False)
    untrained = logits(reference)
    attached = attach(tiny_model(model_type, labels=labels), SPEC, None)
    assert torch.equal(logits(attached.model), untrained)

    torch.manual_seed(1)
    for name, parameter in attached.trainable.items():
        if ".adapter_" in name:
            nn.init.normal_(parameter, std=0.5)
    state = {name: tensor.requires_grad_() for name, tensor in attached.state().items()}
    plain_adapters(reference, state)
    ours, expected = logits(attached.model), logits(reference)
    assert not torch.allclose(ours, untrained, atol=0.1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    for found in (ours, expected):
        found.square().mean().backward()
    for name, parameter in attached.trainable.items():
        if ".adapter_" in name:
            torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("placement", "adapters"), [("pfeiffer", 32), ("houlsby", 64)])
def test_llama2_7b_has_the_known_number_of_trainable_parameters(placement, adapters):
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    attached = attach(model, BottleneckSpec(placement=placement, reduction_factor=16), None)
    assert attached.trainable_parameters == adapters * (2 * 4096 * 256 + 256 + 4096)


@pytest.mark.parametrize("model_type", ["llama", "bert", "modernbert"])
def test_head_of_a_classifier_is_trained_as_well(tiny_model, model_type):
    attached = attach(tiny_model(model_type, labels=3, pad_token_id=0), SPEC, None)
    head = FAMILIES[model_type].head
    trained = [name for name in attached.trainable if ".adapter_" not in name]
    assert {name for name in head for weight in trained if f".{name}." in weight} == set(head)
    logits(attached.model).square().sum().backward()
    assert all(attached.trainable[name].grad.abs().max() > 0 for name in trained)


def test_config_is_written_and_refused_by_peft_by_its_name(tiny_model, tmp_path):
    attached = attach(tiny_model(), SPEC, None)
    attached.config.save_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == "TUNESMITH_BOTTLENECK"
    assert written["placement"] == "houlsby"
    assert written["reduction_factor"] == 8
    assert written["activation"] == "gelu"
    with pytest.raises(KeyError, match="TUNESMITH_BOTTLENECK"):
        peft.PeftModel.from_pretrained(tiny_model(), str(tmp_path))


def test_adapters_of_a_bf16_model_are_fp32(tiny_model):
    attached = attach(tiny_model().to(torch.bfloat16), SPEC, None)
    assert {parameter.dtype for parameter in attached.parameters} == {torch.float32}
    assert logits(attached.model).dtype == torch.bfloat16


def test_reduction_to_nothing_is_refused(tiny_model):
    with pytest.raises(InvalidRequest, match="only 32 features") as caught:
        attach(tiny_model(), BottleneckSpec(reduction_factor=33), None)
    assert caught.value.param == "strategy.reduction_factor"
