"""The matrix from hidden states to logits, with the scaling, bias and cap of some families."""

# C tokens, E hidden size, V vocabulary

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.catalog.families import family_of


@dataclass(frozen=True)
class OutputHead:
    """logits = cap(scale · h Wᵀ + bias), where cap(x) = softcap · tanh(x / softcap).

    The matrix may be trained, tied to the embeddings or not; the bias never is.
    """

    weight_VE: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def in_dtype_of(self, hidden: Tensor) -> "OutputHead":
        """Return the head in the dtype of `hidden`: a copy only if the dtypes differ."""
        bias_V = None if self.bias_V is None else self.bias_V.to(hidden.dtype)
        return replace(self, weight_VE=self.weight_VE.to(hidden.dtype), bias_V=bias_V)

    def logits(self, hidden_CE: Tensor) -> Tensor:
        """Return the logits (C, V)."""
        hidden_CE = self._scaled(hidden_CE)
        if self.bias_V is None:
            logits_CV = torch.mm(hidden_CE, self.weight_VE.t())
        else:
            logits_CV = torch.addmm(self.bias_V, hidden_CE, self.weight_VE.t())
        return self.capped(logits_CV)

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
        return self._scaled(torch.mm(grad_CV, self.weight_VE))

    def add_weight_gradient(self, total_VE: Tensor, grad_CV: Tensor, hidden_CE: Tensor) -> None:
        """Add the matrix's gradient, from that of the uncapped logits, to a sum in any dtype."""
        hidden_CE = self._scaled(hidden_CE)
        if total_VE.dtype == grad_CV.dtype:
            total_VE.addmm_(grad_CV.t(), hidden_CE)
        else:
            total_VE += torch.mm(grad_CV.t(), hidden_CE)

    def _scaled(self, hidden_CE: Tensor) -> Tensor:
        return hidden_CE if self.scale == 1.0 else hidden_CE * self.scale


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
