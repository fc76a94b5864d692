import pytest
import torch

from core.models.frozen import FrozenMatrix


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
