import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.adapters.lora import LoraLinear


def dense(bias):
    return nn.Linear(4, 3, bias=bias, dtype=torch.float64)


def conv1d(bias):
    """GPT-2's: the weight is stored (inputs, outputs), and there is always a bias."""
    layer = Conv1D(3, 4).double()
    nn.init.normal_(layer.bias)
    return layer


def four_bits(bias):
    layer = Linear4bit(4, 3, bias=bias, compute_dtype=torch.float32, quant_type="nf4")
    return layer.to("cpu")


def eight_bits(bias):
    return Linear8bitLt(4, 3, bias=bias, has_fp16_weights=False).to("cpu")


BASES = [dense, conv1d, four_bits, eight_bits]


def layer(base=dense, dropout=0.0, bias=True):
    torch.manual_seed(0)
    lora = LoraLinear(base(bias).requires_grad_(False), rank=2, scale=2.0, dropout=dropout)
    return nn.init.normal_(lora.lora_B), lora


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_those_of_finite_differences(base, bias, dropout):
    _, lora = layer(base, dropout, bias)
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)

    def product(x, lora_A, lora_B):
        torch.manual_seed(1)
        return torch.func.functional_call(lora.train(), {"lora_A": lora_A, "lora_B": lora_B}, x)

    adapter = (weight.detach().double().requires_grad_() for weight in (lora.lora_A, lora.lora_B))
    assert torch.autograd.gradcheck(product, (x, *adapter))


@pytest.mark.parametrize("base", BASES)
def test_untrained_adapter_changes_nothing(base):
    torch.manual_seed(0)
    original = base(bias=True).requires_grad_(False)
    lora = LoraLinear(original, rank=2, scale=2.0)
    x = torch.randn(5, 4, dtype=torch.float64 if base in (dense, conv1d) else torch.float32)
    torch.testing.assert_close(lora(x), original.train()(x))


def test_input_without_gradient_costs_none():
    _, lora = layer()
    x = torch.randn(5, 4, dtype=torch.float64)
    lora(x).sum().backward()
    assert x.grad is None
    assert lora.lora_A.grad is not None
    assert lora.base_layer.weight.grad is None


def test_adapter_of_a_bf16_layer_is_fp32():
    lora = LoraLinear(nn.Linear(4, 3, dtype=torch.bfloat16), rank=2, scale=2.0)
    assert lora.lora_A.dtype == lora.lora_B.dtype == torch.float32
    assert lora(torch.randn(5, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_dropout_is_off_outside_of_training():
    _, lora = layer(dropout=0.5)
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(lora.eval()(x), lora(x))
    assert not torch.equal(lora.train()(x), lora(x))
