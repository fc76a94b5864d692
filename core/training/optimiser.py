"""AdamW over the trained parameters, with clipping and one learning rate per step."""

import torch
from torch import nn

from core.spec.training import TrainingSpec


def build_optimiser(parameters: list[nn.Parameter], spec: TrainingSpec) -> torch.optim.AdamW:
    """Return fused AdamW (Loshchilov & Hutter 2019) with the betas and epsilon of PyTorch."""
    return torch.optim.AdamW(
        parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients to a common norm of at most `max_norm`; return the norm before."""
    return float(nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True))


def apply_gradients(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Take one step at learning rate `rate` and drop the gradients."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
