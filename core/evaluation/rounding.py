"""What rounding does to a model: its own arithmetic once more, rounded otherwise here and there.

Two computations of one formula round the same numbers, one up and the other down. Their errors are
spread evenly over half a step to either side, so they lie √(1/6) of a step apart on average
(quadratic mean). A value that moves by one whole step in one case of six lies as far from itself.
The idea is that of Monte Carlo arithmetic (Parker 1997).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MOVED_SHARE = 1 / 6
"""Of the values: so far apart are two roundings of one number, in steps squared."""

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
_MANTISSA_BITS = {torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}


@contextmanager
def rounded_otherwise(
    model: nn.Module, seed: int, coarser: torch.dtype | None = None
) -> Iterator[None]:
    """Inside the block the output of every module of `model` is rounded otherwise at random.

    The steps are those of its own format, or of a `coarser` one. The same seed gives the same
    roundings; torch's own generators stay as they are. Costs the memory of one more output at a
    time.
    """
    generators: dict[torch.device, torch.Generator] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(part) for part in value)
        if not isinstance(value, Tensor) or value.dtype not in _BITS:
            return value
        if value.device not in generators:
            generators[value.device] = torch.Generator(value.device).manual_seed(seed)
        return moved_by_a_step(value, generators[value.device], coarser or value.dtype)

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        return moved(output)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def moved_by_a_step(value: Tensor, generator: torch.Generator, step: torch.dtype) -> Tensor:
    """Return `value` with a random sixth of its numbers moved to a neighbour in the format `step`.

    Zero stays, as sums of nothing are exact, and so does what is not finite.
    """
    bits = value.detach().contiguous().view(_BITS[value.dtype])
    size = 1 << max(0, _MANTISSA_BITS[value.dtype] - _MANTISSA_BITS[step])
    dice = torch.rand(value.shape, generator=generator, device=value.device)
    signs = (dice < MOVED_SHARE / 2).to(bits.dtype) - (dice > 1 - MOVED_SHARE / 2).to(bits.dtype)
    # the bits of a number without its sign are in the order of its size: one more is one step up
    at_least_a_step = value.abs() >= torch.finfo(value.dtype).smallest_normal * size
    signs *= at_least_a_step & value.isfinite()
    return (bits + signs * size).view(value.dtype)
