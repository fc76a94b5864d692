"""DoRA: a low-rank update with trained row magnitudes.

With V = W + scale · B A and its row norms ‖V‖, y = m / ‖V‖ · (x Vᵀ) + b: A and B change the
direction of the rows of W, and m is their magnitude. ‖V‖ gets no gradient, as in section 4.3 of the
paper. Names and initialization are those of PEFT.

Source: Liu et al. 2024, https://arxiv.org/abs/2402.09353.
"""

# I inputs, O outputs, R rank; `…` any leading sizes

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.adapters.delta import Delta
from core.adapters.linear_layers import LinearLayer
from core.adapters.lora import LoraDelta, LoraLinear
from core.models.frozen import frozen_product


@dataclass(frozen=True)
class DoraDelta:
    """f · (y - b + (x Aᵀ) Bᵀ · scale) + b, where f = magnitude / length of each row."""

    low_rank: LoraDelta
    factors_O: Tensor
    bias_O: Tensor | None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self.bias_O is not None:
            y = y - self.bias_O
        y = self.low_rank(x, y)
        # the factor is near 1, and x + x · (f - 1) keeps the digits that it would lose in bf16
        y = torch.addcmul(y, y, self.factors_O)
        return y if self.bias_O is None else y + self.bias_O


class DoraLinear(LoraLinear):
    """`LoraLinear` with a trained magnitude for each output, initialized to the norm of W's row."""

    def __init__(
        self,
        base_layer: LinearLayer,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        prepack: bool = False,
    ) -> None:
        super().__init__(base_layer, rank, scale, dropout, prepack)
        self._bias_O, self._frozen.bias_O = self._frozen.bias_O, None
        lengths_O = torch.linalg.vector_norm(self._frozen.dense(self.lora_A.dtype), dim=1)
        self.lora_magnitude_vector = nn.Parameter(lengths_O.detach().clone())
        self._squares_of_base_O = lengths_O.detach().square()
        self._remembered: tuple[tuple[int, ...], Tensor] | None = None

    def named_weights(self) -> dict[str, nn.Parameter]:
        return super().named_weights() | {"lora_magnitude_vector": self.lora_magnitude_vector}

    def delta(self, dtype: torch.dtype) -> Delta:
        share_O = (self._factors_O() - 1).to(dtype)
        return DoraDelta(self.low_rank_delta(dtype), share_O, self._bias_O)

    def merged_weight(self) -> Tensor:
        """Return V scaled to the trained magnitudes, (O, I), in the dtype of A and B."""
        merged_OI = super().merged_weight()
        lengths_O = torch.linalg.vector_norm(merged_OI, dim=1)
        return merged_OI * (self.lora_magnitude_vector / lengths_O)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        dropped = self._dropped(x)
        y = self._product(dropped, dropped)
        # x Vᵀ plus a share of it, since a factor near 1 would lose its last digits in bf16
        y = torch.addcmul(y, y, (self._factors_O() - 1).to(y.dtype))
        if dropped is not x:
            # as in PEFT: dropout acts on everything that differs from the base
            y = y + frozen_product(x - dropped, self._frozen)
        return y if self._bias_O is None else y + self._bias_O

    def _factors_O(self) -> Tensor:
        """m / ‖V‖; remembered from one pass without gradients to the next."""
        if torch.is_grad_enabled():
            self._remembered = None
            return self.lora_magnitude_vector / self._lengths_O()
        version = tuple(weight._version for weight in self.named_weights().values())
        if self._remembered is None or self._remembered[0] != version:
            factors_O = (self.lora_magnitude_vector / self._lengths_O()).detach()
            self._remembered = version, factors_O
        return self._remembered[1]

    @torch.no_grad()
    def _lengths_O(self) -> Tensor:
        """‖V‖, from ‖W‖² + 2 scale · W Aᵀ·B + scale² ‖B A‖²: W is read once and V never built."""
        a_RI, scaled_b_OR = self.lora_A, self.lora_B * self.scale
        dtype = self._product_dtype
        base_OR = self._frozen.forward(a_RI.to(dtype)).t().to(a_RI.dtype)
        gram_RR = torch.mm(a_RI, a_RI.t())
        update_OR = 2 * base_OR + torch.mm(scaled_b_OR, gram_RR)
        return (self._squares_of_base_O + (update_OR * scaled_b_OR).sum(1)).clamp_min(0).sqrt()

    @property
    def _product_dtype(self) -> torch.dtype:
        dtype = self.base_layer.weight.dtype
        return dtype if dtype.is_floating_point else self.lora_A.dtype
