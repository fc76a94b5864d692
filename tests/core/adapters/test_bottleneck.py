import pytest
import torch
from torch import nn

from core.adapters.bottleneck import Bottleneck

ACTIVATIONS = {"relu": nn.functional.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu}


class Pair(nn.Module):
    """A module that returns a tuple, as attention does."""

    def forward(self, x, scale=1.0):
        return scale * x, "weights"


def adapter(base=None, activation="relu", dtype=torch.float64, random=True):
    torch.manual_seed(0)
    base = base or nn.Identity()
    made = Bottleneck(base, 6, 3, activation, torch.device("cpu"), dtype)
    if random:
        for parameter in made.parameters():
            nn.init.normal_(parameter)
    return made


def weights(made):
    down, up = made.adapter_down, made.adapter_up
    return down.weight, down.bias, up.weight, up.bias


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_output_is_the_formula(activation):
    made = adapter(activation=activation)
    h = torch.randn(2, 4, 6, dtype=torch.float64)
    down, down_bias, up, up_bias = weights(made)
    expected = h + ACTIVATIONS[activation](h @ down.t() + down_bias) @ up.t() + up_bias
    torch.testing.assert_close(made(h), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_finite_differences(activation):
    made = adapter(activation=activation)
    h = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in made.named_parameters()]

    def run(h, *values):
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), h)

    assert torch.autograd.gradcheck(run, (h, *weights(made)))


def test_new_adapter_changes_nothing():
    made = adapter(random=False)
    h = torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(made(h), h)


def test_new_adapter_learns_from_the_first_step():
    made = adapter(random=False)
    made(torch.randn(5, 6, dtype=torch.float64)).sum().backward()
    assert made.adapter_up.weight.grad.abs().max() > 0


def test_first_part_of_a_tuple_is_adapted_and_arguments_pass_through():
    made = adapter(base=Pair())
    h = torch.randn(5, 6, dtype=torch.float64)
    adapted, rest = made(h, scale=2.0)
    torch.testing.assert_close(adapted, adapter()(2 * h))
    assert rest == "weights"


def test_input_without_gradient_costs_none():
    made = adapter()
    h = torch.randn(4, 6, dtype=torch.float64)
    made(h).sum().backward()
    assert h.grad is None
    assert all(weight.grad is not None for weight in weights(made))


def test_fp32_adapter_runs_in_the_dtype_of_a_bf16_model():
    made = adapter(dtype=torch.float32)
    h = torch.randn(3, 6, dtype=torch.bfloat16, requires_grad=True)
    y = made(h)
    y.float().sum().backward()
    assert y.dtype == h.grad.dtype == torch.bfloat16
    assert {weight.grad.dtype for weight in weights(made)} == {torch.float32}
