"""What it says of a model when no figures come: nobody could be asked, or the engine refused."""

from pydantic import ValidationError

from core.errors import TunesmithError
from core.spec.parity import Parity

_UNSERVABLE = {
    "adapter_corrupt": "module",
    "adapter_of_another_base": "module",
    "invalid_token": "template",
    "no_chat_template": "template",
    "not_a_classifier": "module",
    "not_a_generator": "module",
    "other_labels": "module",
}
"""Refusals that every user of the model would meet, and what they say of it."""


CHECK_FAILED = "the check itself failed"
"""The reason of a model whose check met a fault of the service: it says nothing of the model."""


def unanswered(error: TunesmithError) -> Parity:
    return unchecked(f"the engine did not answer: {error}")


def unchecked(reason: str | None) -> Parity:
    return Parity(status="unchecked", reason=reason)


def refused(error: TunesmithError) -> Parity:
    """Tell a refusal that every user would meet from one that only these rows meet."""
    differs = _UNSERVABLE.get(error.code)
    if differs is None and error.code != "context_length_exceeded" and error.param == "messages":
        differs = "template"
    reason = f"the engine refuses the model's own rows: {error.message}"
    if differs is None:
        return unchecked(reason)
    return Parity.model_validate({"status": "failed", "differs": differs, "reason": reason})


def unreadable(error: ValidationError) -> Parity:
    """Tell figures that are no numbers, which JSON writes as null, from an unknown protocol."""
    faults = error.errors(include_url=False)
    if all(fault["type"] == "float_type" and fault["input"] is None for fault in faults):
        return Parity(
            status="failed", differs="numbers", reason="the engine's figures are no numbers"
        )
    return unchecked("the engine speaks another version of the protocol")
