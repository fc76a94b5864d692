"""Runs Python graders in this machine's sandbox, for the judges of the API and of workers."""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest
from core.sandbox.availability import availability
from core.sandbox.run import run_grader
from core.spec.grader import PythonOutcome


def run_in_sandbox(
    source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
) -> PythonOutcome:
    """Run `grade(sample, item)` of `source`. Blocks for as long as its limits allow.

    Raises InvalidRequest `python_grader_unavailable` on a machine without a sandbox.
    """
    available = availability()
    if available.kind is None:
        raise InvalidRequest(
            f"Python graders cannot run on this machine: {available.reason}",
            code="python_grader_unavailable",
        )
    return run_grader(source, sample, item)
