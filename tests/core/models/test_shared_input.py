"""Products that layers with one input share."""

import torch
from torch import Tensor

from core.models.shared_input import SharedInput


def test_what_layers_read_together_is_taken_once_and_never_for_another_input():
    taken = []

    def compute(x: Tensor) -> dict[int, Tensor]:
        taken.append(x)
        return {0: x, 1: 2 * x, 2: 3 * x}

    one, other = torch.ones(1, 2, 4), torch.zeros(1, 2, 4)
    shared = SharedInput(compute)
    for layer in range(3):
        assert torch.equal(shared.product(one, layer), (layer + 1) * one)
    assert len(taken) == 1
    assert torch.equal(shared.product(one, 0), one)
    assert torch.equal(shared.product(other, 1), other)
    assert torch.equal(shared.product(other, 1), other)
    assert torch.equal(shared.product(one, 2), 3 * one)
    assert len(taken) == 5
