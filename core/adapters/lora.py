"""A frozen linear layer with a trainable low-rank update: y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ.

One autograd function per layer computes no gradient of W and keeps only what its backward pass
needs: the input, shared by layers that read the same tensor, and the rank-sized projection.
Initialization and names are those of PEFT, which the tests compare with.
"""

# T tokens, I inputs, O outputs, R rank

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from core.adapters.delta import AdapterLayer, Delta
from core.adapters.linear_layers import LinearLayer, as_stored, frozen_matrix
from core.models.frozen import FrozenMatrix
from core.models.sixteen_bit_products import product_dtype


@dataclass(frozen=True)
class LoraDelta:
    """y + (x Aᵀ) Bᵀ · scale, with the scale in B."""

    a_RI: Tensor
    b_RO: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        y_TO = y.reshape(-1, y.shape[-1])
        low_TR = torch.mm(x.reshape(-1, x.shape[-1]), self.a_RI.t())
        return y_TO.addmm_(low_TR, self.b_RO).view(y.shape)


class LoraLinear(AdapterLayer):
    """`base_layer` (frozen) plus its low-rank update; the adapter is fp32, or fp64 like the base.

    Fresh weights are PEFT's: A uniform as in `nn.Linear`, B zero, so that training starts from
    the base itself. They take the same draws from torch's generator as PEFT takes.
    """

    base_layer: LinearLayer

    def __init__(
        self,
        base_layer: LinearLayer,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        prepack: bool = False,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._frozen = frozen_matrix(base_layer, prepack)
        self.scale = scale
        self.dropout = dropout
        outputs, inputs = self._frozen.shape
        # PEFT draws A and B as linear layers, then A once more: three draws from the generator
        drawn_on = "meta" if base_layer.weight.is_meta else "cpu"
        lora_A = nn.Linear(inputs, rank, bias=False, device=drawn_on).weight
        lora_B = nn.Linear(rank, outputs, bias=False, device=drawn_on).weight
        nn.init.kaiming_uniform_(lora_A, a=math.sqrt(5))
        nn.init.zeros_(lora_B)
        device, dtype = base_layer.weight.device, base_layer.weight.dtype
        adapter_dtype = torch.promote_types(dtype, torch.float32)
        self.lora_A = nn.Parameter(lora_A.detach().to(device, adapter_dtype))
        self.lora_B = nn.Parameter(lora_B.detach().to(device, adapter_dtype))

    @property
    def weight(self) -> Tensor:
        """The weight of the base; T5 reads its dtype."""
        return self.base_layer.weight

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by the last part of its name in PEFT's files."""
        return {"lora_A.weight": self.lora_A, "lora_B.weight": self.lora_B}

    def delta(self, dtype: torch.dtype) -> Delta:
        return self.low_rank_delta(dtype)

    def low_rank_delta(self, dtype: torch.dtype) -> LoraDelta:
        """Return the update alone."""
        scaled_b_RO = (self.lora_B * self.scale).to(dtype).t().contiguous()
        return LoraDelta(self.lora_A.detach().to(dtype, copy=True), scaled_b_RO.detach())

    def merged(self) -> dict[str, Tensor]:
        return {"weight": as_stored(self.base_layer, self.merged_weight())}

    def merged_weight(self) -> Tensor:
        """Return W + scale · B A, (O, I), in the dtype of A and B."""
        dense_OI = self._frozen.dense(self.lora_A.dtype)
        return torch.addmm(dense_OI, self.lora_B * self.scale, self.lora_A)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, self._dropped(x))

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout) if self.training and self.dropout else x

    def _product(self, x: Tensor, dropped: Tensor) -> Tensor:
        return _LoraProduct.apply(x, dropped, self._frozen, self.lora_A, self.lora_B, self.scale)


class _LoraProduct(torch.autograd.Function):
    """The product and its gradients with respect to the input and to A and B.

    `dropped` is the input of the adapter path: `x` itself, or `x` after dropout, whose own
    backward pass then belongs to autograd. Products are computed in the dtype of `x`, or in fp32
    where the device has none in 16 bits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor,
        frozen: FrozenMatrix,
        lora_A: Tensor,
        lora_B: Tensor,
        scale: float,
    ) -> Tensor:
        wide = product_dtype(x.device, x.dtype)
        x_TI = x.reshape(-1, x.shape[-1])
        dropped_TI = dropped.reshape(-1, x.shape[-1])
        wide_TI = x_TI.to(wide)
        wide_dropped_TI = wide_TI if dropped is x else dropped_TI.to(wide)
        a_RI, scaled_b_OR = lora_A.to(wide), (lora_B * scale).to(wide)
        low_TR = torch.mm(wide_dropped_TI, a_RI.t())
        y_TO = frozen.forward(wide_TI).addmm_(low_TR, scaled_b_OR.t()).to(x.dtype)
        ctx.save_for_backward(dropped_TI, low_TR, a_RI, scaled_b_OR)
        ctx.frozen = frozen
        ctx.scale, ctx.adapter_dtype, ctx.shape = scale, lora_A.dtype, x.shape
        ctx.same_input = dropped is x
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        dropped_TI, low_TR, a_RI, scaled_b_OR = ctx.saved_tensors
        dropped_TI = dropped_TI.to(a_RI.dtype)
        grad_TO = grad_y.reshape(-1, grad_y.shape[-1]).to(a_RI.dtype)
        grad_low_TR = torch.mm(grad_TO, scaled_b_OR)
        grad_a_RI = torch.mm(grad_low_TR.t(), dropped_TI).to(ctx.adapter_dtype)
        # (hᵀ dy)ᵀ and not dyᵀ h: on a CPU the long side belongs on the right
        grad_b_RO = torch.mm(low_TR.t(), grad_TO).to(ctx.adapter_dtype).mul_(ctx.scale)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x_TI = ctx.frozen.backward(grad_TO)
            if ctx.same_input:
                grad_x_TI.addmm_(grad_low_TR, a_RI)
            else:
                grad_dropped = torch.mm(grad_low_TR, a_RI).to(grad_y.dtype).view(ctx.shape)
            grad_x = grad_x_TI.to(grad_y.dtype).view(ctx.shape)
        return grad_x, grad_dropped, None, grad_a_RI, grad_b_RO.t(), None
