"""The states of a job and their transitions. `docs/job-lifecycle.md` has a diagram.

Transitions are made by the worker with the claim (validated, started, succeeded, failed, paused),
the API (created, cancelled, resumed, paused while unclaimed) and housekeeping (rescue after the
death of a worker). Only `core.records.jobs.advance` writes a status.
"""

from enum import StrEnum


class JobStatus(StrEnum):
    """The statuses of OpenAI's API, and `paused`, which the API shows as `queued`."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S = JobStatus

MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    _S.VALIDATING_FILES: frozenset({_S.QUEUED, _S.FAILED, _S.PAUSED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.FAILED, _S.PAUSED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.PAUSED, _S.QUEUED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""The allowed next statuses of each status."""

FINAL: frozenset[JobStatus] = frozenset(status for status, after in MOVES.items() if not after)
"""Statuses without a next status."""

CLAIMABLE: frozenset[JobStatus] = frozenset({_S.VALIDATING_FILES, _S.QUEUED})
"""Statuses in which a worker may take an unclaimed job."""


def sources_of(target: JobStatus) -> frozenset[JobStatus]:
    """Return the allowed previous statuses of `target`: the WHERE of the compare-and-swap."""
    return frozenset(status for status, after in MOVES.items() if target in after)
