import pytest
import torch

from core.models.frozen import FrozenMatrix, joined_product


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


@pytest.mark.parametrize("has_bias", [True, False])
def test_layers_with_one_input_are_multiplied_together(has_bias):
    torch.manual_seed(0)
    layers = [
        (torch.randn(outputs, 20), torch.randn(outputs) if has_bias else None)
        for outputs in (12, 4, 4)
    ]
    joined = joined_product(layers)
    assert joined is not None
    for x in (torch.randn(7, 20), torch.randn(1, 1, 20), torch.randn(0, 20)):
        for number in (0, 1, 2, 1):  # the last one alone
            expected = torch.nn.functional.linear(x, *layers[number])
            torch.testing.assert_close(joined.product(x, number), expected)


def test_only_layers_that_are_alike_are_multiplied_together():
    weight_OI, bias_O = torch.randn(12, 20), torch.randn(12)
    assert joined_product([(weight_OI, bias_O)]) is None
    assert joined_product([(weight_OI, bias_O), (weight_OI, None)]) is None
    assert joined_product([(weight_OI.double(), None), (weight_OI, None)]) is None
