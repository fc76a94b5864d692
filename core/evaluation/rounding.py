"""Measures the effect of rounding on a model by randomly perturbed rounding.

Two computations of one formula may round the same number up and down. Their rounding errors are
uniform over ±½ step (one unit in the last place), so their root mean square distance is √(1/6)
step. Moving a value by one full step with probability 1/6 gives the same distance. The method is
Monte Carlo arithmetic (Parker 1997).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PERTURBED_SHARE = 1 / 6
"""The share of values that move by one step: the mean square distance of two roundings."""

POOL = 1_048_573
"""Draws of a pass. A prime, so that rows of a large output have different draws."""

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
_MANTISSA_BITS = {torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}


class Signs:
    """Random draws of -1, 0 and 1, where a sixth is not 0; the same for the same seed.

    A pool is drawn once, and each use begins at a random place in it: draws for every value of a
    pass took longer than the pass itself. torch's global generators are not used.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        generator = torch.Generator(device).manual_seed(seed)
        words = torch.empty(POOL // 4 + 1, dtype=torch.int64, device=device)
        parts = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:POOL]
        limit = round(2**15 * (1 - PERTURBED_SHARE))
        drawn = (parts >= limit).to(torch.int8) - (parts < -limit).to(torch.int8)
        self._twice = drawn.repeat(2)
        self._places = random.Random(seed)

    def take(self, shape: torch.Size) -> Tensor:
        """Return int8 draws of a shape."""
        count, place = shape.numel(), self._places.randrange(POOL)
        if count <= POOL:
            return self._twice[place : place + count].view(shape)
        return self._twice[place : place + POOL].repeat(-(-count // POOL))[:count].view(shape)


@contextmanager
def perturbed_rounding(
    model: nn.Module, seed: int, coarser: torch.dtype | None = None
) -> Iterator[None]:
    """Randomly perturb the rounding of every module output of `model` inside the block.

    Steps have the size of the output's number format, or of a `coarser` one. The same seed gives
    the same perturbations. Needs memory for one more output at a time.
    """
    signs: dict[torch.device, Signs] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or value.dtype not in _BITS:
            return value
        if value.device not in signs:
            signs[value.device] = Signs(value.device, seed)
        return perturbed(value, signs[value.device], coarser or value.dtype)

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        return moved(output)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def perturbed(value: Tensor, signs: Signs, step: torch.dtype) -> Tensor:
    """Return `value` with a random sixth of its numbers moved by one step of the format `step`.

    Zeros do not change, because empty sums are exact; neither do non-finite values.
    """
    limits, bits = torch.finfo(value.dtype), value.detach().contiguous().view(_BITS[value.dtype])
    size = 1 << max(0, _MANTISSA_BITS[value.dtype] - _MANTISSA_BITS[step])
    magnitude = value.detach().abs()
    movable = (magnitude >= limits.smallest_normal * size) & (magnitude <= limits.max)
    # floats of one sign are ordered like their bits as integers: adding 1 is one step
    return bits.add(signs.take(value.shape) * movable, alpha=size).view(value.dtype)
