"""What PyTorch asks a driver for, answered without one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

aten = torch.ops.aten

current: list[Callable[[str], None]] = []
"""Of each device that is in use: counts a wait of the host."""

_sdpa = nn.functional.scaled_dot_product_attention
_apply = nn.Module._apply


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Run what PyTorch chooses on a recent GPU: flash in 16 bits without a mask, or efficient."""
    if query.device.type != "cuda":
        options = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return _sdpa(query, key, value, attn_mask, dropout_p, **options)  # type: ignore[arg-type]
    in_16_bits = query.dtype in (torch.bfloat16, torch.float16)
    if attn_mask is None and in_16_bits:
        flash = aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if enable_gqa and (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if attn_mask is not None:
        if attn_mask.dtype is torch.bool:
            hidden = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = hidden.masked_fill_(~attn_mask, float("-inf"))
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = aten._scaled_dot_product_efficient_attention
    # the logarithms of sums are kept for the backward pass, if there is one
    keeps = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    arguments = query, key, value, attn_mask, keeps, dropout_p, is_causal
    return efficient(*arguments, scale=scale)[0]


def _applied(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """Convert weights one by one: `nn.Module` swaps tensors, which fails for those in use."""
    if not any(isinstance(weight, FakeTensor) for weight in self.parameters()):
        return _apply(self, function, recurse)
    converted: dict[int, nn.Parameter] = {}
    for module in self.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in converted:
                made = nn.Parameter(function(weight.detach()), weight.requires_grad)
                converted[id(weight)] = made
            module._parameters[name] = converted[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
    return self


def _synchronize(device: object = None) -> None:
    if current:
        current[-1]("synchronize")


def _never(*_: object) -> Tensor:
    raise AssertionError("a kernel of the pretend device ran")


# Builds for CPUs compose it of six operations, because they have no kernel for CUDA.
kernels = torch.library.Library("aten", "IMPL")
kernels.impl("silu_backward", _never, "CUDA")

nn.functional.scaled_dot_product_attention = _attention
nn.Module._apply = _applied  # type: ignore[method-assign, assignment]
torch.cuda._lazy_init = lambda: None
torch.cuda.synchronize = _synchronize
