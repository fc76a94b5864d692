"""The loss head of a causal model on labelled tokens only, with its gradient taken on the way.

The output matrix is frozen, so the gradient of the loss with respect to the hidden states needs
nothing that the forward pass does not already hold: two matmuls instead of three, and no logits
kept. Cf. Hsu et al. 2024, Liger Kernel, https://arxiv.org/abs/2410.10989 (fused linear cross
entropy).
"""

# L labelled tokens, C labelled tokens of one chunk, E hidden size, V vocabulary

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Bound on the fp32 logits that exist at one time."""


@dataclass(frozen=True)
class LossSums:
    """Sums over targets, never means: steps of any packing add up to the same.

    A target is a labelled token, or a whole row or pair where the objective judges those.
    """

    loss: Tensor
    """Nats, a scalar that carries the gradient."""
    targets: int
    correct: Tensor
    """Targets that the model got right: tokens or labels that were the most probable ones, or
    pairs whose chosen answer was."""
    row_losses: Tensor
    """(rows,): the loss of each row of the batch, detached."""


@dataclass(frozen=True)
class TargetLosses:
    """Over labelled tokens: the loss (a scalar that carries the gradient), how many were the most
    probable ones, and the loss of each one, detached."""

    loss: Tensor
    correct: Tensor
    losses_L: Tensor


def labelled_cross_entropy(hidden_LE: Tensor, head_VE: Tensor, targets_L: Tensor) -> TargetLosses:
    """Return the sums over `targets_L`, which the states `hidden_LE` predict.

    The loss is fp32 (fp64 for fp64 inputs) and differentiable with respect to `hidden_LE`
    only; softmax is taken in fp32.
    """
    loss, correct, losses_L = _LabelledCrossEntropy.apply(hidden_LE, head_VE, targets_L)
    return TargetLosses(loss, correct, losses_L)


class _LabelledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_LE: Tensor, head_VE: Tensor, targets_L: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(hidden_LE.dtype, torch.float32)
        chunk = max(1, CHUNK_BYTES // (4 * head_VE.shape[0]))
        needs_gradient = ctx.needs_input_grad[0]
        grad_LE = torch.empty_like(hidden_LE) if needs_gradient else None
        losses_L = hidden_LE.new_empty(len(targets_L), dtype=wide)
        correct = targets_L.new_zeros(())
        for start in range(0, hidden_LE.shape[0], chunk):
            hidden_CE = hidden_LE[start : start + chunk]
            targets_C1 = targets_L[start : start + chunk, None]
            logits_CV = torch.mm(hidden_CE, head_VE.t())
            best_C1, guesses_C1 = logits_CV.max(dim=-1, keepdim=True)
            correct += (guesses_C1 == targets_C1).sum()
            probabilities_CV = torch.softmax(logits_CV, dim=-1, dtype=wide)
            # -log p(target), by way of the greatest p, which cannot underflow
            behind_C1 = best_C1.to(wide) - logits_CV.gather(1, targets_C1).to(wide)
            losses_C1 = behind_C1 - probabilities_CV.gather(1, guesses_C1).log()
            losses_L[start : start + chunk] = losses_C1[:, 0]
            if grad_LE is not None:
                # d loss / d logits = softmax - one-hot, written over the probabilities
                minus_one_C1 = probabilities_CV.new_full(targets_C1.shape, -1.0)
                grad_CV = probabilities_CV.scatter_add_(1, targets_C1, minus_one_C1)
                torch.mm(grad_CV.to(head_VE.dtype), head_VE, out=grad_LE[start : start + chunk])
        ctx.save_for_backward(grad_LE)
        ctx.mark_non_differentiable(correct, losses_L)
        return losses_L.sum(), correct, losses_L

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        (grad_LE,) = ctx.saved_tensors
        return grad_LE * grad_loss.to(grad_LE.dtype), None, None
