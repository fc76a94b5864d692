"""The parity result of a model if the engine returned no log-probabilities."""

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
"""Error codes that every request to the model would get, and what they say about the model."""


CHECK_FAILED = "the check itself failed"
"""The reason when the check failed because of an error of the service, not of the model."""


def unanswered(error: TunesmithError) -> Parity:
    return unchecked(f"the engine did not answer: {error}")


def unchecked(reason: str | None) -> Parity:
    return Parity(status="unchecked", reason=reason)


def refused(error: TunesmithError) -> Parity:
    """Distinguish an error that every request would get from one specific to these rows."""
    differs = _UNSERVABLE.get(error.code)
    if differs is None and error.code != "context_length_exceeded" and error.param == "messages":
        differs = "template"
    rejected = f"engine rejected rows of the model's training data: {error.message}"
    if differs is None:
        return unchecked(f"the {rejected}")
    reason = f"The {rejected}"
    return Parity.model_validate({"status": "failed", "differs": differs, "reason": reason})


def unreadable(error: ValidationError) -> Parity:
    """Distinguish non-finite numbers, which JSON writes as null, from an unknown protocol."""
    errors = error.errors(include_url=False)
    if all(each["type"] == "float_type" and each["input"] is None for each in errors):
        return Parity(
            status="failed",
            differs="numbers",
            reason="The engine's log-probabilities are not finite numbers.",
        )
    return unchecked("the engine uses another version of the protocol")
