"""Runs Python graders: `grade(sample, item)` of a source that nobody trusts."""

from collections.abc import Mapping
from threading import BoundedSemaphore
from typing import Any

from core.cores import usable_cores
from core.errors import InvalidRequest, Unavailable
from core.sandbox.availability import availability
from core.sandbox.grading import run_in
from core.sandbox.limits import LIMITS, Limits
from core.sandbox.process import SandboxBroken
from core.spec.grader import PythonOutcome

AT_ONCE = max(2, usable_cores())
"""Graders of one process of ours that run together; further calls wait. Bounds their memory."""

TURN_SECONDS = 120.0
"""The longest that a call waits for others."""

CODE = "sandbox_unavailable"

_turns = BoundedSemaphore(AT_ONCE)


def run_grader(
    source: str, sample: Mapping[str, Any], item: Mapping[str, Any], limits: Limits = LIMITS
) -> PythonOutcome:
    """Return the score that `grade(sample, item)` returns, or the error that ended it.

    Blocks; any thread may call it. `sample` and `item` hold what JSON can say. Raises
    InvalidRequest on a machine without a sandbox, and Unavailable if the sandbox fails this time or
    if too many graders wait, all with the code `sandbox_unavailable`.
    """
    available = availability()
    if available.kind is None:
        raise InvalidRequest(
            f"This machine cannot run Python graders in a sandbox. {available.reason}", code=CODE
        )
    if not _turns.acquire(timeout=TURN_SECONDS):
        raise Unavailable("Too many Python graders are waiting. Try again later.", code=CODE)
    try:
        return run_in(available.kind, source, sample, item, limits)
    except (SandboxBroken, OSError) as error:
        raise Unavailable(
            f"The sandbox of the Python grader failed: {error}. Try again later.", code=CODE
        ) from error
    finally:
        _turns.release()
