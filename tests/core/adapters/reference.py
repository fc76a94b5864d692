"""Adapters beside PEFT's own layers: the same base, the same draws, the same batches."""

import warnings
from contextlib import contextmanager

import peft
import torch
from torch import nn

from core.adapters.adapted import AdaptedModel
from tests.core import tiny

TOKENS_BT = torch.randint(5, 250, (2, 12), generator=torch.Generator().manual_seed(5))


@contextmanager
def warnings_of_peft():
    """PEFT warns about tied weights, and about GPT-2's layers although its config names them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        warnings.filterwarnings("ignore", message=".*gradient.checkpointing")
        yield


def attached_beside_peft(attach, spec, model_type, labels=None, **changes):
    """Return our adapter and PEFT's, each freshly drawn from the same seed on the same base."""
    if labels is not None:
        changes["pad_token_id"] = 0
    models = [tiny.tiny_model(model_type, labels=labels, **changes) for _ in range(2)]
    torch.manual_seed(3)
    adapted = attach(models[0], spec)
    torch.manual_seed(3)
    with warnings_of_peft():
        reference = peft.get_peft_model(models[1], adapted.config)
    return adapted, reference


def disturb(adapted: AdaptedModel, reference: peft.PeftModel) -> None:
    """Move both away from where training starts: there B is zero and hides A."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in adapted.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape))
    peft.set_peft_model_state_dict(reference, adapted.state())


def batch(labels=None):
    targets = TOKENS_BT if labels is None else torch.tensor([0, labels - 1])
    return {"input_ids": TOKENS_BT, "labels": targets}


def logits_and_gradients(model: nn.Module, labels=None):
    """Return the logits of a pass in training mode; gradients are in the weights."""
    torch.manual_seed(7)
    out = model.train()(**batch(labels))
    out.loss.backward()
    return out.logits.detach()


def gradients_of(reference: peft.PeftModel):
    """Return PEFT's gradients by the names of its files."""
    return {
        name.replace("modules_to_save.default.", "")
        .replace(".default", "")
        .replace("magnitude_vector.weight", "magnitude_vector"): parameter.grad
        for name, parameter in reference.named_parameters()
        if parameter.grad is not None
    }


def loss_curve(model: nn.Module, weights, labels=None, steps=20):
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = model.train()(**batch(labels)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
