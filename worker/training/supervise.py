"""Supervises one child: reads its pipe to the end and passes its events to the recorder."""

import logging
import math
import time
from collections.abc import Callable

from core.spec.events import RunEvent, StepDone, run_event_adapter
from worker.launch import Child
from worker.training.recorder import Recorder

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
BATCH_SECONDS = 0.25
"""Steps that end within this time share a transaction."""


def supervise(child: Child, recorder: Recorder, grace_period: Callable[[], float | None]) -> int:
    """Record every event until the child has ended, and return its exit status.

    `grace_period` is called repeatedly. None lets the run continue. A number asks the child to
    stop, and is the time in seconds to finish its micro-batch and save its state before it is
    killed. Steps are recorded in batches, other events at once, all in order.
    """
    steps: list[StepDone] = []
    last_write = 0.0
    granted_seconds: float | None = None
    kill_at = math.inf
    while True:
        seconds = grace_period()
        if seconds is not None and seconds != granted_seconds:
            child.ask_to_stop()
            granted_seconds, kill_at = seconds, time.monotonic() + seconds
        if time.monotonic() > kill_at:
            logger.warning("The child did not stop within %s s and is killed.", granted_seconds)
            child.kill()
        try:
            event = _next_event(child)
        except EOFError:
            break
        if isinstance(event, StepDone):
            steps.append(event)
        if steps and (event is None or time.monotonic() - last_write >= BATCH_SECONDS):
            recorder.write_steps(steps)
            steps, last_write = [], time.monotonic()
        if event is not None and not isinstance(event, StepDone):
            if steps:
                recorder.write_steps(steps)
                steps = []
            recorder.write(event)
    if steps:
        recorder.write_steps(steps)
    return child.wait()


def _next_event(child: Child) -> RunEvent | None:
    """Return the next event, None if none came within POLL_SECONDS; EOFError after the last one."""
    try:
        if not child.events.poll(POLL_SECONDS):
            return None
        return run_event_adapter.validate_json(child.events.recv_bytes())
    except OSError as error:  # the child died in the middle of a message
        raise EOFError from error
