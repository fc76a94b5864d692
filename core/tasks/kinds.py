"""The kinds of durable background work, as a table.

A new kind is one row here and one file: the module that the row names, with a function
`run(attempt: worker.tasks.attempt.Attempt) -> Spec`. Only what requests a kind names it.
CONTRIBUTING.md has the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Queue(StrEnum):
    """The workers that run the work."""

    DEVICE = "device"
    """Work that needs the training device, one item at a time."""
    LIGHT = "light"
    """Short work on the CPU, which must not wait for a training run of hours."""


@dataclass(frozen=True)
class TaskKind:
    """How tasks of one kind run, and their limits."""

    runner: str
    """The module whose `run` makes one attempt."""
    queue: Queue
    id_prefix: str
    lease_seconds: float
    """The lifetime of a claim without a heartbeat; heartbeats are sent every third of it."""
    max_attempts: int
    """The maximum number of attempts that crash, lose their worker or lack storage."""
    retry_seconds: float
    """The delay after the first attempt that crashed or lacked storage; it doubles each time."""
    limit_seconds: float
    """The time limit of an attempt. Beyond it the task fails, or is retried if storage is
    unavailable."""
    at_once: int
    """The maximum number of concurrent tasks of this kind in one worker."""
    kept_seconds: float | None
    """How long a finished task is kept; None: until its subject is deleted."""


KINDS: dict[str, TaskKind] = {
    "base_download": TaskKind(
        runner="worker.tasks.base_download",
        queue=Queue.LIGHT,
        id_prefix="download",
        lease_seconds=30,
        max_attempts=6,
        retry_seconds=5,
        limit_seconds=86_400,
        at_once=2,
        kept_seconds=7 * 86_400,
    ),
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
        at_once=1,  # concurrent tests would distort each other
        kept_seconds=None,
    ),
    "dry_run": TaskKind(
        runner="worker.tasks.dry_run",
        queue=Queue.DEVICE,
        id_prefix="estimate",
        lease_seconds=30,
        max_attempts=2,  # a run that kills its process would do so again
        retry_seconds=1,
        limit_seconds=1200,  # a large base has to be loaded
        at_once=1,
        kept_seconds=365 * 86_400,  # later estimates are corrected by its figures
    ),
    "batch": TaskKind(
        runner="worker.tasks.batch",
        queue=Queue.LIGHT,
        id_prefix="batchtask",
        lease_seconds=30,
        max_attempts=10,  # in a row without progress
        retry_seconds=5,
        limit_seconds=8 * 86_400,  # the longest completion window and a day for the files
        at_once=4,  # each waits for engines most of the time
        kept_seconds=86_400,
    ),
    "eval_run": TaskKind(
        runner="worker.tasks.eval_run",
        queue=Queue.LIGHT,
        id_prefix="evaltask",
        lease_seconds=30,
        max_attempts=10,  # in a row without progress
        retry_seconds=5,
        limit_seconds=8 * 86_400,  # as a batch: engines may be busy with live requests
        at_once=4,  # each waits for engines most of the time
        kept_seconds=86_400,
    ),
    "comparison": TaskKind(
        runner="worker.tasks.comparison",
        queue=Queue.LIGHT,
        id_prefix="ftcompare",
        lease_seconds=30,
        max_attempts=10,
        retry_seconds=5,
        limit_seconds=86_400,  # in the background of busy engines
        at_once=2,  # each waits for engines most of the time
        kept_seconds=30 * 86_400,
    ),
    "export": TaskKind(
        runner="worker.tasks.export",
        queue=Queue.LIGHT,  # weights are merged and quantized in the memory of the CPU
        id_prefix="export",
        lease_seconds=30,
        max_attempts=3,  # what kills its process would do so again
        retry_seconds=5,
        limit_seconds=6 * 3600,  # a large model is loaded several times
        at_once=1,  # each has a model in memory
        kept_seconds=None,
    ),
    "distillation": TaskKind(
        runner="worker.tasks.distillation",
        queue=Queue.LIGHT,
        id_prefix="distilltask",
        lease_seconds=30,
        max_attempts=10,  # in a row without progress
        retry_seconds=5,
        limit_seconds=8 * 86_400,  # as an eval run: a teacher may be slow, or busy
        at_once=4,  # each waits for engines and endpoints most of the time
        kept_seconds=86_400,
    ),
    "model_import": TaskKind(
        runner="worker.tasks.model_import",
        queue=Queue.DEVICE,
        id_prefix="ftimport",
        lease_seconds=30,
        max_attempts=4,
        retry_seconds=5,
        limit_seconds=3600,  # a large base is loaded three times, by the engine too
        at_once=1,
        kept_seconds=365 * 86_400,  # it says where a model comes from
    ),
    "model_soup": TaskKind(
        runner="worker.tasks.model_soup",
        queue=Queue.DEVICE,
        id_prefix="ftsoup",
        lease_seconds=30,
        max_attempts=4,
        retry_seconds=5,
        limit_seconds=3600,
        at_once=1,
        kept_seconds=365 * 86_400,
    ),
    "response": TaskKind(
        runner="worker.tasks.response",
        queue=Queue.LIGHT,
        id_prefix="response",
        lease_seconds=30,
        max_attempts=3,
        retry_seconds=1,
        limit_seconds=3600,  # with the time that all engines are full
        at_once=8,  # they wait for an engine, which batches them
        kept_seconds=None,
    ),
}

JOB = "job"
"""The kind of fine-tuning jobs, which are not tasks and have their own life cycle."""


@dataclass(frozen=True)
class Work:
    """A job or a task, as named by a message and a row of the outbox."""

    kind: str
    id: str

    @property
    def queue(self) -> Queue:
        return Queue.DEVICE if self.kind == JOB else KINDS[self.kind].queue


def kinds_of(queue: Queue) -> Sequence[str]:
    """Return the kinds of task in a queue."""
    return [name for name, kind in KINDS.items() if kind.queue is queue]
