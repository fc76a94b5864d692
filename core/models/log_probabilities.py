"""Log-probabilities of labelled tokens, each one differentiable, without stored logits.

The gradient of a token's log-probability with respect to its hidden state is computed in the
forward pass, as in `heads.py`; the weight of the token in the loss is known later and scales it. A
trained head needs these weights for its own gradient, so its logits are recomputed in the backward
pass.
"""

# L labelled tokens, C labelled tokens of one chunk, E hidden size, V vocabulary

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from core.models import heads
from core.models.output_head import OutputHead


def log_probabilities(hidden_LE: Tensor, head: OutputHead, targets_L: Tensor) -> Tensor:
    """Return log p(target) (L,) of each target given its state.

    fp32 (fp64 for fp64 inputs), differentiable with respect to the states, and to the matrix of the
    head if that is trained.
    """
    found_L: Tensor = _LogProbabilities.apply(hidden_LE, head.weight_VE, head, targets_L)
    return found_L


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_LE: Tensor, weight_VE: Tensor, head: OutputHead, targets_L: Tensor
    ) -> Tensor:
        wide = torch.promote_types(hidden_LE.dtype, torch.float32)
        trains_states, ctx.trains_head, *_ = ctx.needs_input_grad
        narrow_head = head.for_states(hidden_LE)
        grad_LE = torch.empty_like(hidden_LE) if trains_states else None
        found_L = hidden_LE.new_empty(len(targets_L), dtype=wide)
        for chunk in _chunks(hidden_LE, weight_VE):
            logits_CV = narrow_head.logits(hidden_LE[chunk])
            log_p_CV = torch.log_softmax(logits_CV, dim=-1, dtype=wide)
            found_L[chunk] = log_p_CV.gather(1, targets_L[chunk, None])[:, 0]
            if grad_LE is not None:
                grad_CV = narrow_head.uncap(_gradient(log_p_CV, targets_L[chunk]), logits_CV)
                grad_LE[chunk] = narrow_head.hidden_gradient(grad_CV.to(hidden_LE.dtype))
        ctx.save_for_backward(grad_LE, *((hidden_LE, targets_L) if ctx.trains_head else ()))
        ctx.head = head
        return found_L

    @staticmethod
    def backward(ctx: Any, grad_L: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_LE, *kept = ctx.saved_tensors
        grad_VE = None
        if ctx.trains_head:
            hidden_LE, targets_L = kept
            grad_VE = _weight_gradient(ctx.head, hidden_LE, targets_L, grad_L)
        if grad_LE is not None:
            grad_LE = (grad_LE * grad_L[:, None]).to(grad_LE.dtype)
        return grad_LE, grad_VE, None, None


def _weight_gradient(
    head: OutputHead, hidden_LE: Tensor, targets_L: Tensor, grad_L: Tensor
) -> Tensor:
    narrow_head = head.for_states(hidden_LE)
    grad_VE = torch.zeros_like(head.weight_VE, dtype=grad_L.dtype)
    for chunk in _chunks(hidden_LE, head.weight_VE):
        logits_CV = narrow_head.logits(hidden_LE[chunk])
        log_p_CV = torch.log_softmax(logits_CV, dim=-1, dtype=grad_L.dtype)
        grad_CV = _gradient(log_p_CV, targets_L[chunk]).mul_(grad_L[chunk, None])
        grad_CV = narrow_head.uncap(grad_CV, logits_CV).to(hidden_LE.dtype)
        narrow_head.add_weight_gradient(grad_VE, grad_CV, hidden_LE[chunk])
    return grad_VE.to(head.weight_VE.dtype)


def _chunks(hidden_LE: Tensor, weight_VE: Tensor) -> Iterator[slice]:
    size = heads.chunk_tokens(weight_VE)
    for start in range(0, len(hidden_LE), size):
        yield slice(start, start + size)


def _gradient(log_p_CV: Tensor, targets_C: Tensor) -> Tensor:
    """Return d log p(target) / d logits = one-hot - softmax, in the memory of `log_p_CV`."""
    grad_CV = log_p_CV.exp_().neg_()
    ones_C1 = grad_CV.new_ones(len(targets_C), 1)
    return grad_CV.scatter_add_(1, targets_C[:, None], ones_C1)
