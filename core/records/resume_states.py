"""The newest resume states of a job.

The worker of the job writes the list, under its claim. Housekeeping deletes the states of jobs that
have ended.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.records.tables import Job
from core.spec.base import Spec
from core.spec.ids import JobId

KEPT_RESUME_STATES = 2
"""The newest one, and another in case it cannot be read."""


class ResumeState(Spec):
    """The archive of a resume state in storage: all that a run needs to resume after `step`."""

    step: int
    key: str
    sha256: str


def states_of(job: Job) -> tuple[ResumeState, ...]:
    """Return the states of a job, newest first."""
    return tuple(ResumeState.model_validate(state) for state in job.resume_states or ())


def with_newest(
    states: Sequence[ResumeState], newest: ResumeState
) -> tuple[tuple[ResumeState, ...], tuple[str, ...]]:
    """Return the states to keep, with `newest`, and the storage keys of those to delete."""
    others = [state for state in states if state.step != newest.step]
    kept = (newest, *others[: KEPT_RESUME_STATES - 1])
    kept_keys = {state.key for state in kept}
    return kept, tuple(state.key for state in states if state.key not in kept_keys)


def as_column(states: Sequence[ResumeState]) -> list[dict[str, Any]] | None:
    """Return the value of the column `resume_states` for these states, newest first."""
    return [state.model_dump() for state in states] or None


def newest_step(states: Sequence[ResumeState]) -> int:
    """Return the step to resume from; 0 without a state."""
    return states[0].step if states else 0


def saved_step(session: Session, job_id: JobId) -> int:
    """Return the step that a job in the database resumes from; 0 without a state."""
    return newest_step(states_of(session.scalars(select(Job).where(Job.id == job_id)).one()))


def left_by_ended_jobs(session: Session, limit: int = 100) -> dict[JobId, list[str]]:
    """Return the jobs that have ended, with the storage keys of their remaining states."""
    rows = session.execute(
        select(Job.id, Job.resume_states)
        .where(Job.finished_at.is_not(None), Job.resume_states.is_not(None))
        .order_by(Job.finished_at)
        .limit(limit)
    ).all()
    return {job_id: [state["key"] for state in states] for job_id, states in rows}


def forget(session: Session, job_id: JobId) -> None:
    """Record that the states of a job that has ended are deleted."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.finished_at.is_not(None))
        .values(resume_states=None)
        .execution_options(synchronize_session=False)
    )
