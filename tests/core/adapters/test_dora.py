import pytest
import torch
from torch import nn

from core.adapters.dora import DoraLinear
from tests.core.adapters.test_lora import BASES, conv1d, dense


def layer(base=dense, dropout=0.0, bias=True):
    torch.manual_seed(0)
    dora = DoraLinear(base(bias).requires_grad_(False), rank=2, scale=2.0, dropout=dropout)
    nn.init.normal_(dora.lora_B)
    return dora


def whole_matrix(dora):
    """V = W + scale · B A, (outputs, inputs)."""
    update = dora.scale * dora.lora_B @ dora.lora_A
    return dora._frozen.dense(update.dtype) + update


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_those_of_finite_differences(monkeypatch, base, bias, dropout):
    dora = layer(base, dropout, bias).train()
    lengths_O = dora._lengths_O().double()  # they count as constant
    monkeypatch.setattr(dora, "_lengths_O", lambda: lengths_O)
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    names = ("lora_A", "lora_B", "lora_magnitude_vector")

    def product(x, *weights):
        torch.manual_seed(1)
        return torch.func.functional_call(dora, dict(zip(names, weights, strict=True)), x)

    weights = (getattr(dora, name).detach().double().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(product, (x, *weights))


@pytest.mark.parametrize("base", BASES)
def test_lengths_are_those_of_the_rows_of_the_whole_matrix(base):
    dora = layer(base)
    expected = torch.linalg.vector_norm(whole_matrix(dora), dim=1)
    torch.testing.assert_close(dora._lengths_O(), expected, check_dtype=False)


@pytest.mark.parametrize("base", [dense, conv1d])
def test_rows_have_the_trained_lengths(base):
    dora = layer(base)
    nn.init.uniform_(dora.lora_magnitude_vector, 0.5, 2.0)
    rows = nn.functional.normalize(whole_matrix(dora), dim=1)
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = x @ (dora.lora_magnitude_vector[:, None] * rows).t() + dora.base_layer.bias
    torch.testing.assert_close(dora(x), expected)


def test_passes_without_gradients_see_weights_that_change_between_them():
    dora, x = layer().eval(), torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        before = dora(x)
        assert torch.equal(dora(x), before)
        dora.lora_A.mul_(2)
        after = dora(x)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, dora(x).detach())


def test_a_small_change_of_length_survives_bf16():
    dora = DoraLinear(nn.Linear(64, 8, dtype=torch.bfloat16), rank=2, scale=1.0)
    x = torch.randn(256, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        before = dora(x).float()
        dora.lora_magnitude_vector.mul_(1.003)  # bf16 has no number between 1 and 1.0078
        grown = (dora(x).float() * before).sum() / before.square().sum()
    assert 1.002 < grown.item() < 1.006
