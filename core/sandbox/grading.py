"""Runs one grader in one kind of sandbox, and judges what comes out."""

import json
import math
import signal
import struct
from typing import Any

from core.sandbox.commands import Kind
from core.sandbox.inside.grading import ERROR, SCORE
from core.sandbox.limits import Limits
from core.sandbox.process import Ending, SandboxedProcess, TimedOut
from core.spec.grader import PythonOutcome


def run_in(kind: Kind, source: str, sample: Any, item: Any, limits: Limits) -> PythonOutcome:
    """Run `grade(sample, item)`. What the grader does is an outcome, never an exception.

    Raises SandboxBroken if the sandbox cannot be set up.
    """
    size = len(source.encode(errors="surrogatepass"))
    if size > limits.source_bytes:
        return _error(f"The source has {size} bytes; at most {limits.source_bytes} are allowed.")
    try:
        # A copy: `marshal` takes exact types only, and the grader gets plain ones.
        request = (source, json.loads(json.dumps(sample)), json.loads(json.dumps(item)))
    except RecursionError:
        return _error("The sample or the item is nested too deeply.")
    except ValueError as error:  # an integer of thousands of digits
        return _error(f"The sample or the item cannot be sent to the grader: {error}.")
    with SandboxedProcess(kind, limits) as process:
        try:
            answer = process.ask(request)
        except TimedOut:
            return _error(f"The grader exceeded the time limit of {limits.wall_seconds:g} seconds.")
    return _outcome(answer, process.ending, limits)


def _outcome(answer: bytes, ending: Ending | None, limits: Limits) -> PythonOutcome:
    """The answer comes from a process that the grader controlled: it may be anything."""
    if len(answer) > limits.output_bytes:
        return _error(f"The grader wrote more than {limits.output_bytes} bytes into its answer.")
    content = answer[1:]
    if answer[:1] == SCORE and len(content) == struct.calcsize("<d"):
        (score,) = struct.unpack("<d", content)
        if math.isfinite(score):
            return PythonOutcome(score=score)
    if answer[:1] == ERROR:
        return _error(content.decode(errors="replace"))
    if answer:
        return _error("The grader wrote into the channel of its answer.")
    return _error(_ended(ending, limits))


def _ended(ending: Ending | None, limits: Limits) -> str:
    if ending is None:
        return "The grader ended without a score."
    # The kernel counts ticks, of which others may have had a part.
    if ending.signal == signal.SIGKILL and ending.cpu_seconds > limits.cpu_seconds / 2:
        return f"The grader exceeded the limit of {limits.cpu_seconds} seconds of CPU time."
    if ending.signal:
        name = signal.strsignal(ending.signal) or "unknown"
        return f"The grader gave no score: signal {ending.signal} ({name}) ended its process."
    return f"The grader gave no score: it ended its process with status {ending.exit_code}."


def _error(text: str) -> PythonOutcome:
    return PythonOutcome(score=None, error=text)
