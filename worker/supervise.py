"""Watches over one child: reads its pipe to the end and hands what it says to the record."""

import logging
import time
from threading import Event

from core.spec.events import RunEvent, StepDone, run_event_adapter
from worker.launch import Child
from worker.record import Record

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
BATCH_SECONDS = 0.25
"""Steps that end within this time share a transaction."""

STOP_SECONDS = 15.0
"""What a child that was asked to stop may take for its micro-batch."""


def supervise(child: Child, record: Record, stopping: Event) -> int:
    """Record every event until the child is gone, and return its exit status.

    Once `stopping` is set the child is asked to end, and killed when it does not. Steps are
    recorded in batches, everything else at once and in order.
    """
    steps: list[StepDone] = []
    last_write = 0.0
    kill_at: float | None = None
    while True:
        if stopping.is_set() and kill_at is None:
            child.ask_to_stop()
            kill_at = time.monotonic() + STOP_SECONDS
        if kill_at is not None and time.monotonic() > kill_at:
            logger.warning("The child did not stop within %.0f s and is killed.", STOP_SECONDS)
            child.kill()
        try:
            event = _next_event(child)
        except EOFError:
            break
        if isinstance(event, StepDone):
            steps.append(event)
        if steps and (event is None or time.monotonic() - last_write >= BATCH_SECONDS):
            record.write_steps(steps)
            steps, last_write = [], time.monotonic()
        if event is not None and not isinstance(event, StepDone):
            if steps:
                record.write_steps(steps)
                steps = []
            record.write(event)
    if steps:
        record.write_steps(steps)
    return child.wait()


def _next_event(child: Child) -> RunEvent | None:
    """The next event, or None when none came for a moment; EOFError after the last one."""
    try:
        if not child.events.poll(POLL_SECONDS):
            return None
        return run_event_adapter.validate_json(child.events.recv_bytes())
    except OSError as error:  # the child died in the middle of a message
        raise EOFError from error
