"""Products in bf16 and fp16 on CPUs that lack instructions for them.

Without AVX-512 or its like, PyTorch multiplies 16-bit matrices in scalar loops, which take 3 to 35
times as long as in fp32. The products installed here convert to fp32, multiply, and round once.
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

_FORMATS = (torch.bfloat16, torch.float16)
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_IN_PLACE = ("addmm_", "baddbmm_")


def has_products(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device has instructions for products in this dtype."""
    if device.type != "cpu":
        return True
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the device multiplies tensors of `dtype`: that, or fp32."""
    return dtype if has_products(device, dtype) else torch.float32


def ensure_products(device: torch.device, dtype: torch.dtype) -> None:
    """Replace PyTorch's 16-bit products in this process if the device has none in this dtype.

    Every later product on the CPU takes 10 us longer, in fp32 too.
    """
    if not has_products(device, dtype):
        install(frozenset(each for each in _FORMATS if not has_products(device, each)))


@cache
def install(formats: frozenset[torch.dtype]) -> torch.library.Library:
    """Replace the products in `formats`. The library that holds them lives in the cache."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name in _PRODUCTS:
            _replace(library, name, formats, partial(_rounded, getattr(torch, name)))
            _replace(library, f"{name}.out", formats, partial(_into_out, getattr(torch, name)))
        for name in _IN_PLACE:
            product = getattr(torch, name.rstrip("_"))
            _replace(library, name, formats, partial(_in_place, product))
    return library


Product = Callable[..., Tensor]


def _replace(
    library: torch.library.Library,
    name: str,
    formats: frozenset[torch.dtype],
    in_16_bits: Product,
) -> None:
    original = torch.library.get_kernel(f"aten::{name}", "CPU")

    def product(keys: torch.DispatchKeySet, first: Tensor, *rest: Any, **named: Any) -> Any:
        if first.dtype in formats:
            return in_16_bits(first, *rest, **named)
        return original.call_boxed(keys, first, *rest, **named)

    library.impl(name, product, "CPU", with_keyset=True)


def _rounded(product: Product, *arguments: Any, **named: Any) -> Tensor:
    return _wide(product, arguments, named).to(arguments[0].dtype)


def _into_out(product: Product, *arguments: Any, out: Tensor, **named: Any) -> Tensor:
    wide = _wide(product, arguments, named)
    return out.resize_(wide.shape).copy_(wide)


def _in_place(product: Product, *arguments: Any, **named: Any) -> Tensor:
    first: Tensor = arguments[0]
    return first.copy_(_wide(product, arguments, named))


def _wide(product: Product, arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    widened = (each.float() if isinstance(each, Tensor) else each for each in arguments)
    return product(*widened, **named)
