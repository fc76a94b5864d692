"""Measures the effect of rounding on a model by randomly perturbed rounding.

Two computations of one formula may round the same number up and down. Their rounding errors are
uniform over ±½ step (one unit in the last place), so the mean square of their distance is ⅙ step².
Here a small share of the values is multiplied by 1 ± ε, which has the same mean square. The method
is Monte Carlo arithmetic (Parker 1997).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PERTURBED_SHARE = 1 / 6 / 2.2
"""A factor of 1 ± ε moves a value of mantissa m, in [1, 2), by m steps, rounded to 1 or 2. With the
logarithms of the mantissas distributed evenly (Benford's law), the mean square is 2.2 step²."""

POOL = 1_048_573
"""Draws of a pass. A prime, so that rows of a large output have different draws."""

FORMATS = (torch.float32, torch.bfloat16, torch.float16)


class Factors:
    """Random factors of 1 - ε, 1 and 1 + ε with the ε of the format `step`; the same for a seed.

    A pool is drawn once, and each use begins at a random place in it: draws for every value of a
    pass took longer than the pass itself. torch's global generators are not used.
    """

    def __init__(
        self, device: torch.device, seed: int, dtype: torch.dtype, step: torch.dtype
    ) -> None:
        generator = torch.Generator(device).manual_seed(seed)
        words = torch.empty(POOL // 4 + 1, dtype=torch.int64, device=device)
        parts = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:POOL]
        limit = round(2**15 * (1 - PERTURBED_SHARE))
        signs = (parts >= limit).to(dtype) - (parts < -limit).to(dtype)
        eps = max(torch.finfo(step).eps, torch.finfo(dtype).eps)
        self._twice = (1 + eps * signs).repeat(2)
        self._places = random.Random(seed)

    def take(self, shape: torch.Size) -> Tensor:
        """Return factors of a shape."""
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
    the same perturbations. Zeros and non-finite values do not change. Needs memory for one more
    output at a time.
    """
    factors: dict[tuple[torch.device, torch.dtype], Factors] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or value.dtype not in FORMATS:
            return value
        kind = value.device, value.dtype
        if kind not in factors:
            factors[kind] = Factors(value.device, seed, value.dtype, coarser or value.dtype)
        return value * factors[kind].take(value.shape)

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        return moved(output)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
