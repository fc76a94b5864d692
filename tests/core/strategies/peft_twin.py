"""A strategy on our side and on that of PEFT, with equal weights."""

from collections.abc import Callable
from typing import Any

import peft
import torch

from core.adapters.adapted import AdaptedModel
from core.spec.strategy import PrefixSpec, PromptSpec
from core.strategies.attach import attach


def twins(
    tiny_model: Callable[..., Any],
    model_type: str,
    spec: PrefixSpec | PromptSpec,
    labels: int | None = None,
) -> tuple[AdaptedModel, peft.PeftModel]:
    """Return our model and PEFT's, each with weights of its own making from the same seed."""
    ours, theirs = tiny_model(model_type, labels=labels), tiny_model(model_type, labels=labels)
    torch.manual_seed(3)
    attached = attach(ours, spec, None)
    torch.manual_seed(3)
    reference = peft.get_peft_model(theirs, attached.config).eval()
    expected = peft.get_peft_model_state_dict(reference)
    state = attached.state()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name
    return attached, reference


def alone(text: list[int]) -> dict[str, torch.Tensor]:
    """Return the arguments with which transformers runs one text."""
    return {"input_ids": torch.tensor([text]), "attention_mask": torch.ones(1, len(text)).long()}
