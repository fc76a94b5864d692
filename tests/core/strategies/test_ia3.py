"""(IA)³ against PEFT: weights, logits, gradients, counts, files and merged weights."""

import peft
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.artifacts.merge import merge
from core.errors import InvalidRequest
from core.spec.strategy import Ia3Spec
from core.strategies.ia3 import attach_ia3
from tests.core import tiny
from tests.core.adapters.reference import (
    attached_beside_peft,
    disturb,
    gradients_of,
    logits_and_gradients,
    loss_curve,
    warnings_of_peft,
)

PLAIN = Ia3Spec()
ATTENTION = Ia3Spec(target_modules=("q_proj", "layers.1.mlp.up_proj"))
INPUTS = Ia3Spec(target_modules=("o_proj", "down_proj"), feedforward_modules=("o_proj",))
WHOLE = Ia3Spec(modules_to_save=("lm_head", "model.norm"))
CASES = [
    *((model_type, PLAIN, None) for model_type in (*tiny.DECODERS, *tiny.ENCODER_DECODERS)),
    *((model_type, PLAIN, 3) for model_type in ("llama", "gpt2", *tiny.ENCODERS)),
    *(("llama", spec, None) for spec in (ATTENTION, INPUTS, WHOLE)),
]
each_case = pytest.mark.parametrize(("model_type", "spec", "labels"), CASES)


@each_case
def test_weights_logits_and_gradients_equal_peft(model_type, spec, labels):
    adapted, reference = attached_beside_peft(attach_ia3, spec, model_type, labels)
    expected = peft.get_peft_model_state_dict(reference)
    assert adapted.state().keys() == expected.keys()
    for name, tensor in adapted.state().items():
        assert torch.equal(tensor, expected[name]), name
    assert adapted.trainable_parameters == reference.get_nb_trainable_parameters()[0]

    disturb(adapted, reference)
    ours, theirs = (logits_and_gradients(m, labels) for m in (adapted.model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    gradients = gradients_of(reference)
    assert gradients.keys() == {n for n, p in adapted.trainable.items() if p.grad is not None}
    for name, gradient in gradients.items():
        torch.testing.assert_close(adapted.trainable[name].grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("model_type", "labels"), [("llama", None), ("gpt2", None), ("bert", 3)])
def test_loss_curve_equals_peft(model_type, labels):
    adapted, reference = attached_beside_peft(attach_ia3, PLAIN, model_type, labels)
    ours = loss_curve(adapted.model, adapted.parameters, labels)
    trained = [p for p in reference.parameters() if p.requires_grad]
    assert ours == pytest.approx(loss_curve(reference, trained, labels), rel=1e-4)
    assert ours[-1] < ours[0]


def test_an_untrained_adapter_is_the_base():
    base = tiny.tiny_model()
    expected = base(torch.arange(9)[None]).logits
    adapted = attach_ia3(base, PLAIN)
    assert torch.equal(adapted.model(torch.arange(9)[None]).logits, expected)


def test_llama2_7b_has_the_known_number_of_vectors():
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    adapted = attach_ia3(model, PLAIN)
    assert adapted.trainable_parameters == 32 * (4096 + 4096 + 11008) == 614_400


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5", "qwen2"])
def test_merged_weights_are_those_of_peft(model_type):
    adapted, reference = attached_beside_peft(attach_ia3, PLAIN, model_type)
    disturb(adapted, reference)
    adapted.remove()
    merged = merge(adapted).state_dict()
    expected = reference.merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model_type", ["qwen3", "gpt2"])
def test_file_loads_in_peft(tmp_path, model_type):
    adapted, reference = attached_beside_peft(attach_ia3, PLAIN, model_type)
    disturb(adapted, reference)
    adapted.config.save_pretrained(str(tmp_path))
    save_file(adapted.state(), tmp_path / "adapter_model.safetensors")
    with warnings_of_peft():
        loaded = peft.PeftModel.from_pretrained(tiny.tiny_model(model_type), str(tmp_path))
    tokens = torch.arange(30, 45)[None]
    torch.testing.assert_close(adapted.model.eval()(tokens).logits, loaded(tokens).logits)


def test_vectors_of_a_bf16_model_are_fp32_and_are_rounded_once():
    adapted = attach_ia3(tiny.tiny_model().to(torch.bfloat16), PLAIN)
    layer = adapted.replaced["model.layers.0.self_attn.k_proj"]
    assert layer.ia3_l.dtype == torch.float32
    torch.nn.init.constant_(layer.ia3_l, 1.001)  # in bf16 it would be 1
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    expected = (layer.base_layer(x).float() * 1.001).to(torch.bfloat16)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.delta(torch.bfloat16)(x, layer.base_layer(x)), expected)


def test_a_feed_forward_layer_that_is_no_target_is_refused_with_the_spec():
    with pytest.raises(ValidationError, match=r"'up_proj', which is not in target_modules"):
        Ia3Spec(target_modules=("q_proj",), feedforward_modules=("up_proj",))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_modules": ("query_proj",)}, "q_proj"),
        ({"modules_to_save": ("self_attn", "mlp")}, "No layer is left"),
        ({"modules_to_save": ("nothing",)}, "has no layer"),
    ],
)
def test_names_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(InvalidRequest, match=words):
        attach_ia3(tiny.tiny_model(), Ia3Spec(**fields))
