import pytest
import torch

from core.models.frozen import FrozenMatrix, packed_products


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 7])
def test_prepacked_products_equal_plain_ones(tokens, bias):
    torch.manual_seed(0)
    weight_OI, bias_O = torch.randn(12, 20), torch.randn(12) if bias else None
    x_TI, grad_TO = torch.randn(tokens, 20), torch.randn(tokens, 12)
    plain, packed = (FrozenMatrix(weight_OI, bias_O, prepack) for prepack in (False, True))
    assert packed._packed is not None
    torch.testing.assert_close(packed.forward(x_TI), plain.forward(x_TI))
    torch.testing.assert_close(packed.backward(grad_TO), plain.backward(grad_TO))


def test_other_dtypes_are_multiplied_as_they_are():
    weight_OI = torch.randn(4, 4, dtype=torch.float64)
    assert FrozenMatrix(weight_OI, None, prepack=True)._packed is None


@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
def test_layers_with_one_input_are_multiplied_together_or_alone(biases):
    torch.manual_seed(0)
    layers = [
        (torch.randn(outputs, 20), torch.randn(outputs) if has_bias else None)
        for outputs, has_bias in zip((12, 4, 4), biases, strict=True)
    ]
    products = packed_products(layers)
    for x in (torch.randn(7, 20), torch.randn(1, 1, 20), torch.randn(0, 20)):
        for number in (0, 1, 2, 1):  # the last one alone
            product, (weight_OI, bias_O) = products[number], layers[number]
            assert product is not None
            expected = torch.nn.functional.linear(x, weight_OI, bias_O)
            torch.testing.assert_close(product(x), expected)
    assert packed_products([(weight.double(), bias) for weight, bias in layers]) == [None] * 3
