"""Parity: a model is asked as users will ask it before it is published.

The design, and what is done when nobody can be asked, is in
docs/decisions/0012-parity-before-publication.md.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from core.spec.parity import Parity, ParityReference
from core.spec.run import BaseModelSpec
from worker.engine_client import EngineAway, EngineRefused
from worker.engines import EngineAddress
from worker.replay import Candidate, replay
from worker.verdict import judge

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class ParityCheck:
    """Asks whichever engine is found; `leave_off` says when the worker has to turn to others."""

    find_engine: Callable[[BaseModelSpec], EngineAddress | None]
    leave_off: Callable[[], bool]

    def __call__(self, reference: ParityReference | None, candidate: Candidate) -> Parity:
        """Return the verdict on a model. Raises Interrupted; nothing else keeps it from an end."""
        if reference is None or not reference.rows:
            return _unchecked(reference.missing if reference else "the run left no reference")
        engine = self.find_engine(candidate.base)
        if engine is None:
            return _unchecked("no engine is registered")
        try:
            return judge(reference, replay(engine, reference, candidate, self.leave_off))
        except EngineAway as error:
            return _unchecked(f"the engine did not answer: {error}")
        except EngineRefused as error:
            return _refused(error)
        except ValidationError as error:
            logger.warning("The engine's answer cannot be read: %s", error)
            return _unreadable(error)


def _unchecked(reason: str | None) -> Parity:
    return Parity(status="unchecked", reason=reason)


def _refused(error: EngineRefused) -> Parity:
    differs = _UNSERVABLE.get(error.code or "")
    if differs is None and error.code != "context_length_exceeded" and error.param == "messages":
        differs = "template"
    reason = f"the engine refuses the model's own rows: {error.message}"
    if differs is None:
        return _unchecked(reason)
    return Parity.model_validate({"status": "failed", "differs": differs, "reason": reason})


def _unreadable(error: ValidationError) -> Parity:
    """Tell figures that are no numbers, which JSON writes as null, from an unknown protocol."""
    faults = error.errors(include_url=False)
    if all(fault["type"] == "float_type" and fault["input"] is None for fault in faults):
        return Parity(
            status="failed", differs="numbers", reason="the engine's figures are no numbers"
        )
    return _unchecked("the engine speaks another version of the protocol")
