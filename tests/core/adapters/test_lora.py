import peft
import pytest
import torch
from torch import nn

from core.adapters.lora import LoraLinear
from core.spec.strategy import LoraSpec
from core.strategies.lora import attach_lora


def layer(dropout=0.0, bias=True):
    torch.manual_seed(0)
    base = nn.Linear(6, 5, bias=bias, dtype=torch.float64).requires_grad_(False)
    lora = LoraLinear(base, rank=3, alpha=6.0, dropout=dropout)
    nn.init.normal_(lora.lora_B)
    return lora


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_finite_differences(bias):
    lora = layer(bias=bias)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)

    def product(x, lora_A, lora_B):
        return torch.func.functional_call(lora, {"lora_A": lora_A, "lora_B": lora_B}, x)

    assert torch.autograd.gradcheck(product, (x, lora.lora_A, lora.lora_B))


def test_gradients_with_dropout_are_those_of_finite_differences():
    lora = layer(dropout=0.5).train()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

    def product(x, lora_A, lora_B):
        torch.manual_seed(1)
        return torch.func.functional_call(lora, {"lora_A": lora_A, "lora_B": lora_B}, x)

    assert torch.autograd.gradcheck(product, (x, lora.lora_A, lora.lora_B))


def test_input_without_gradient_costs_none():
    lora = layer()
    x = torch.randn(4, 6, dtype=torch.float64)
    lora(x).sum().backward()
    assert x.grad is None
    assert lora.lora_A.grad is not None
    assert lora.base_layer.weight.grad is None


def test_adapter_of_a_bf16_layer_is_fp32():
    lora = LoraLinear(nn.Linear(6, 5, dtype=torch.bfloat16), rank=2, alpha=4, dropout=0.0)
    assert lora.lora_A.dtype == lora.lora_B.dtype == torch.float32
    assert lora(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_weights_logits_and_gradients_equal_peft(tiny_model, model_type, dropout):
    tokens_BT = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(5))
    spec = LoraSpec(rank=4, alpha=8, dropout=dropout)
    base, reference_base = tiny_model(model_type), tiny_model(model_type)
    torch.manual_seed(3)
    attached = attach_lora(base, spec)
    torch.manual_seed(3)
    reference = peft.get_peft_model(reference_base, attached.config)
    expected = peft.get_peft_model_state_dict(reference)
    assert attached.state().keys() == expected.keys()
    for name, tensor in attached.state().items():
        assert torch.equal(tensor, expected[name]), name

    with torch.no_grad():  # B is zero after initialisation and would hide A
        for name, parameter in reference.named_parameters():
            ours = attached.trainable.get(name.replace(".default", ""))
            if ours is not None and "lora_B" in name:
                ours.copy_(nn.init.normal_(parameter))

    losses = []
    for model in (attached.model.train(), reference.train()):
        torch.manual_seed(7)
        out = model(tokens_BT, labels=tokens_BT)
        out.loss.backward()
        losses.append(out.logits.detach())
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for name, parameter in reference.named_parameters():
        if parameter.grad is not None:
            ours = attached.trainable[name.replace(".default", "")]
            torch.testing.assert_close(ours.grad, parameter.grad, rtol=1e-4, atol=1e-6)
