"""The matrix from hidden states to logits, with the scaling, bias and cap of some families."""

# L tokens, C of them, E hidden size, V vocabulary

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from core.catalog.families import family_of
from core.models.frozen import packed_product
from core.models.sixteen_bit_products import product_dtype

PREPACKED_STATES = 256
"""From so many states on, prepacking a matrix takes less time than it saves."""


@dataclass(frozen=True)
class OutputHead:
    """logits = cap(scale · h Wᵀ + bias), where cap(x) = softcap · tanh(x / softcap).

    The matrix may be trained, tied to the embeddings or not; the bias never is.
    """

    weight_VE: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    packed: Callable[[Tensor], Tensor] | None = None
    """The product with the prepacked matrix, with the bias."""

    def for_states(self, hidden_LE: Tensor) -> "OutputHead":
        """Return a head for products with `hidden_LE`, in its dtype.

        Its matrix is a copy if it has another dtype, if the device multiplies this dtype in fp32,
        or if the states are many enough for a prepacked matrix.
        """
        dtype = product_dtype(hidden_LE.device, hidden_LE.dtype)
        weight_VE = self.weight_VE.to(dtype)
        bias_V = None if self.bias_V is None else self.bias_V.to(dtype)
        is_long = len(hidden_LE) >= PREPACKED_STATES
        packed = packed_product(weight_VE, bias_V) if is_long else None
        return replace(self, weight_VE=weight_VE, bias_V=bias_V, packed=packed)

    def logits(self, hidden_CE: Tensor) -> Tensor:
        """Return the logits (C, V)."""
        wide_CE = self._scaled(hidden_CE)
        if self.packed is not None:
            logits_CV = self.packed(wide_CE)
        else:
            logits_CV = linear(wide_CE, self.weight_VE, self.bias_V)
        return self.capped(logits_CV.to(hidden_CE.dtype))

    def capped(self, logits_CV: Tensor) -> Tensor:
        """Apply the cap to logits, in place."""
        if self.softcap is None:
            return logits_CV
        return logits_CV.div_(self.softcap).tanh_().mul_(self.softcap)

    def uncap(self, grad_CV: Tensor, logits_CV: Tensor) -> Tensor:
        """Propagate the gradient of the logits back through the cap, in place."""
        if self.softcap is None:
            return grad_CV
        return grad_CV.mul_(1 - (logits_CV.to(grad_CV.dtype) / self.softcap).square_())

    def hidden_gradient(self, grad_CV: Tensor) -> Tensor:
        """Return the gradient of the states (C, E) from that of the uncapped logits."""
        grad_CE = torch.mm(grad_CV.to(self.weight_VE.dtype), self.weight_VE)
        return self._scaled(grad_CE).to(grad_CV.dtype)

    def add_weight_gradient(self, total_VE: Tensor, grad_CV: Tensor, hidden_CE: Tensor) -> None:
        """Add the matrix's gradient, from that of the uncapped logits, to a sum in any dtype."""
        hidden_CE, grad_CV = self._scaled(hidden_CE), grad_CV.to(self.weight_VE.dtype)
        if total_VE.dtype == grad_CV.dtype:
            total_VE.addmm_(grad_CV.t(), hidden_CE)
        else:
            total_VE += torch.mm(grad_CV.t(), hidden_CE)

    def _scaled(self, hidden_CE: Tensor) -> Tensor:
        hidden_CE = hidden_CE if self.scale == 1.0 else hidden_CE * self.scale
        return hidden_CE.to(self.weight_VE.dtype)


def output_head(model: PreTrainedModel) -> OutputHead:
    """Return the head of a causal model or of an encoder-decoder."""
    config, fields = model.config, family_of(model.config.model_type).output
    scaled = fields.scales_states is not None and getattr(config, fields.scales_states)
    return OutputHead(
        model.get_output_embeddings().weight,
        bias_V=None if fields.bias is None else getattr(model, fields.bias)[0],
        scale=config.hidden_size**-0.5 if scaled else 1.0,
        softcap=None if fields.softcap is None else getattr(config, fields.softcap),
    )
