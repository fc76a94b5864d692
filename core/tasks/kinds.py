"""The kinds of durable background work, as a table.

A new kind is one row here and one file: the module that the row names, with a function
`run(attempt: worker.tasks.attempt.Attempt) -> Spec`. Nothing else knows the kinds by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Queue(StrEnum):
    """Which workers take the work."""

    DEVICE = "device"
    """What needs the device of a training run: one piece of work at a time."""
    LIGHT = "light"
    """Short work on the CPU: it must not wait for a run that trains for hours."""


@dataclass(frozen=True)
class TaskKind:
    """How tasks of one kind are run, and within which bounds."""

    runner: str
    """The module whose `run` does one attempt."""
    queue: Queue
    id_prefix: str
    lease_seconds: float
    """How long a claim lives without a heartbeat; a heartbeat comes after a third of it."""
    max_attempts: int
    """Attempts that may crash or lose their worker before the task fails."""
    retry_seconds: float
    """The pause after the first crash of the runner; it doubles with every further one."""
    limit_seconds: float
    """An attempt that takes longer ends the task as failed."""
    at_once: int
    """How many of this kind one worker runs at the same time."""
    kept_seconds: float | None
    """How long a task that has ended can be read; None: until its subject is deleted."""


KINDS: dict[str, TaskKind] = {
    "mask_audit": TaskKind(
        runner="worker.tasks.mask_audit",
        queue=Queue.LIGHT,
        id_prefix="mask",
        lease_seconds=30,
        max_attempts=3,
        retry_seconds=1,
        limit_seconds=120,
        at_once=2,
        kept_seconds=86_400,
    ),
    "speed_test": TaskKind(
        runner="worker.tasks.speed_test",
        queue=Queue.LIGHT,
        id_prefix="speed",
        lease_seconds=30,
        max_attempts=3,
        retry_seconds=1,
        limit_seconds=1200,  # a large base may have to be loaded first
        at_once=1,  # two at once would measure each other
        kept_seconds=None,
    ),
}

JOB = "job"
"""The kind of work that is not a task: a fine-tuning job, which has a life cycle of its own."""


@dataclass(frozen=True)
class Work:
    """A job or a task: what a message and a row of the outbox name."""

    kind: str
    id: str

    @property
    def queue(self) -> Queue:
        return Queue.DEVICE if self.kind == JOB else KINDS[self.kind].queue


def kinds_of(queue: Queue) -> Sequence[str]:
    """Names of the kinds of task in a queue."""
    return [name for name, kind in KINDS.items() if kind.queue is queue]
