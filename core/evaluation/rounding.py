"""Measures the effect of rounding on a model by randomly perturbed rounding.

Two computations of one formula may round the same number up and down. Their rounding errors are
uniform over ±½ step (one unit in the last place), so their root mean square distance is √(1/6)
step. Moving a value by one full step with probability 1/6 gives the same distance. The method is
Monte Carlo arithmetic (Parker 1997).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PERTURBED_SHARE = 1 / 6
"""The share of values that move by one step: the mean square distance of two roundings."""

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
_MANTISSA_BITS = {torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}


@contextmanager
def perturbed_rounding(
    model: nn.Module, seed: int, coarser: torch.dtype | None = None
) -> Iterator[None]:
    """Randomly perturb the rounding of every module output of `model` inside the block.

    Steps have the size of the output's number format, or of a `coarser` one. The same seed gives
    the same perturbations; torch's global generators are not used. Needs memory for one more
    output at a time.
    """
    generators: dict[torch.device, torch.Generator] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or value.dtype not in _BITS:
            return value
        if value.device not in generators:
            generators[value.device] = torch.Generator(value.device).manual_seed(seed)
        return perturbed(value, generators[value.device], coarser or value.dtype)

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        return moved(output)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def perturbed(value: Tensor, generator: torch.Generator, step: torch.dtype) -> Tensor:
    """Return `value` with a random sixth of its numbers moved by one step of the format `step`.

    Zeros do not change, because empty sums are exact; neither do non-finite values.
    """
    bits = value.detach().contiguous().view(_BITS[value.dtype])
    size = 1 << max(0, _MANTISSA_BITS[value.dtype] - _MANTISSA_BITS[step])
    dice = torch.rand(value.shape, generator=generator, device=value.device)
    signs = (dice < PERTURBED_SHARE / 2).to(bits.dtype) - (dice > 1 - PERTURBED_SHARE / 2).to(
        bits.dtype
    )
    # floats of one sign are ordered like their bits as integers: adding 1 is one step
    at_least_a_step = value.abs() >= torch.finfo(value.dtype).smallest_normal * size
    signs *= at_least_a_step & value.isfinite()
    return (bits + signs * size).view(value.dtype)
