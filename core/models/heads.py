"""The cross entropy of labelled tokens, with the gradient computed in the forward pass.

Every token has the same weight in the sum, so the forward pass has everything that the gradient
needs: two matmuls with a frozen output matrix, three with a trained one, and no stored logits. Cf.
Hsu et al. 2024, Liger Kernel, https://arxiv.org/abs/2410.10989 (fused linear cross entropy).
"""

# L labelled tokens, C labelled tokens of one chunk, E hidden size, V vocabulary

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.models.output_head import OutputHead

CHUNK_BYTES = {"cpu": 16 * 2**20, "cuda": 512 * 2**20}
"""Bytes of fp32 logits per chunk, by device: enough for its matmuls to run at full speed."""

SMALLEST_CHUNK = 64
"""Tokens per chunk. With fewer, a matmul is bound by reading the matrix."""


def chunk_tokens(weight_VE: Tensor) -> int:
    """Return the number of tokens per chunk."""
    fitting = CHUNK_BYTES[weight_VE.device.type] // (4 * weight_VE.shape[0])
    return max(SMALLEST_CHUNK, fitting)


@dataclass(frozen=True)
class LossSums:
    """Sums over targets, never means, so the result does not depend on packing.

    A target is a labelled token, or a row or pair for objectives that evaluate those.
    """

    loss: Tensor
    """In nats; a scalar with gradient."""
    targets: int
    correct: Tensor
    """The number of correct targets: tokens or labels that were the most probable, or pairs whose
    chosen answer was."""
    row_losses: Tensor
    """(rows,): the loss of each row, detached."""


@dataclass(frozen=True)
class TargetLosses:
    """Over labelled tokens: the loss (a scalar with gradient), the number of correct tokens, and
    the loss of each token, detached."""

    loss: Tensor
    correct: Tensor
    losses_L: Tensor


def labelled_cross_entropy(hidden_LE: Tensor, head: OutputHead, targets_L: Tensor) -> TargetLosses:
    """Return the losses of `targets_L`, predicted by the states `hidden_LE`.

    The loss is fp32 (fp64 for fp64 inputs), differentiable with respect to the states, and to the
    matrix of the head if that is trained. Softmax and the matrix's gradient over chunks are
    computed in fp32.
    """
    loss, correct, losses_L = _LabelledCrossEntropy.apply(
        hidden_LE, head.weight_VE, head, targets_L
    )
    return TargetLosses(loss, correct, losses_L)


class _LabelledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_LE: Tensor, weight_VE: Tensor, head: OutputHead, targets_L: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(hidden_LE.dtype, torch.float32)
        head = head.for_states(hidden_LE)
        chunk = chunk_tokens(weight_VE)
        trains_states, trains_head, *_ = ctx.needs_input_grad
        grad_LE = torch.empty_like(hidden_LE) if trains_states else None
        grad_VE = torch.zeros_like(weight_VE, dtype=wide) if trains_head else None
        losses_L = hidden_LE.new_empty(len(targets_L), dtype=wide)
        correct = targets_L.new_zeros(())
        for start in range(0, hidden_LE.shape[0], chunk):
            hidden_CE = hidden_LE[start : start + chunk]
            targets_C1 = targets_L[start : start + chunk, None]
            losses_C1, right, grad_CV = _chunk_losses(
                head, hidden_CE, targets_C1, wide, wants_gradient=trains_states or trains_head
            )
            losses_L[start : start + chunk] = losses_C1[:, 0]
            correct += right
            if grad_CV is not None and grad_LE is not None:
                grad_LE[start : start + chunk] = head.hidden_gradient(grad_CV)
            if grad_CV is not None and grad_VE is not None:
                head.add_weight_gradient(grad_VE, grad_CV, hidden_CE)
            del grad_CV  # before the next chunk needs the same memory
        ctx.save_for_backward(grad_LE, grad_VE)
        ctx.weight_dtype = weight_VE.dtype
        ctx.mark_non_differentiable(correct, losses_L)
        return losses_L.sum(), correct, losses_L

    @staticmethod
    def backward(
        ctx: Any, grad_loss: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_LE, grad_VE = ctx.saved_tensors
        # `grad_loss` as a matrix keeps its dtype: a scaled gradient may not fit into fp16
        if grad_LE is not None:
            grad_LE = (grad_LE * grad_loss.view(1, 1)).to(grad_LE.dtype)
        if grad_VE is not None:
            # in place, because memory is at its peak here
            grad_VE = grad_VE.mul_(grad_loss).to(ctx.weight_dtype)
        return grad_LE, grad_VE, None, None


def _chunk_losses(
    head: OutputHead,
    hidden_CE: Tensor,
    targets_C1: Tensor,
    wide: torch.dtype,
    *,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the losses (C, 1) of a chunk, the number of correct tokens, and d loss / d logits.

    The gradient (C, V) is that of the uncapped logits, in the dtype of the states; None if it is
    not wanted. Logits and probabilities end with this function: on a GPU they are gigabytes.
    """
    logits_CV = head.logits(hidden_CE)
    best_C1, guesses_C1 = logits_CV.max(dim=-1, keepdim=True)
    right = (guesses_C1 == targets_C1).sum()
    probabilities_CV = torch.softmax(logits_CV, dim=-1, dtype=wide)
    # -log p(target), computed from the largest p, which cannot underflow
    behind_C1 = best_C1.to(wide) - logits_CV.gather(1, targets_C1).to(wide)
    losses_C1 = behind_C1 - probabilities_CV.gather(1, guesses_C1).log()
    if not wants_gradient:
        return losses_C1, right, None
    # d loss / d logits = softmax - one-hot, in the memory of the probabilities
    minus_one_C1 = probabilities_CV.new_full(targets_C1.shape, -1.0)
    grad_CV = probabilities_CV.scatter_add_(1, targets_C1, minus_one_C1)
    return losses_C1, right, head.uncap(grad_CV, logits_CV).to(hidden_CE.dtype)
