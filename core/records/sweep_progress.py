"""Sweeps as they move on: their trials with the jobs, and the ends of both.

`core.sweeps.advance` decides what follows a rung; `core.records.trials` has what the worker of a
trial writes. Locks are taken in the order of all transactions: the jobs first, then the sweep.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session, defer

from core.jobs.state import FINAL, JobStatus
from core.records import outbox
from core.records.events import NewEvent, append_events, storable
from core.records.jobs import advance
from core.records.tables import Job, Sweep, SweepTrial
from core.spec.ids import JobId, SweepId
from core.spec.sweep import SweepStatus
from core.spec.trial import TrialOutcome
from core.tasks.kinds import JOB, Work


@dataclass(frozen=True)
class TrialJob:
    """A trial, and the job that it is."""

    trial: SweepTrial
    job: Job


def trials_of(session: Session, sweeps: Sequence[Sweep]) -> dict[SweepId, list[TrialJob]]:
    """Return the trials of each sweep, by number. The specs of their jobs are not read."""
    rows = session.execute(
        select(SweepTrial, Job)
        .options(defer(Job.spec))
        .join(Job, Job.id == SweepTrial.job_id)
        .where(SweepTrial.sweep_id.in_([sweep.id for sweep in sweeps]))
        .order_by(SweepTrial.sweep_id, SweepTrial.number)
        .execution_options(populate_existing=True)
    ).all()
    found: dict[SweepId, list[TrialJob]] = defaultdict(list)
    for trial, job in rows:
        found[trial.sweep_id].append(TrialJob(trial, job))
    return found


def running_sweeps(session: Session) -> Sequence[Sweep]:
    """Return the sweeps whose trials may have to be compared, oldest first."""
    return session.scalars(
        select(Sweep)
        .where(Sweep.finished_at.is_(None), Sweep.status == SweepStatus.RUNNING)
        .order_by(Sweep.created_at, Sweep.id)
    ).all()


def lock_sweep(session: Session, sweep_id: SweepId) -> tuple[Sweep, list[TrialJob]]:
    """Lock the jobs of a sweep and then the sweep; return it with its trials, as they are now."""
    ids = select(SweepTrial.job_id).where(SweepTrial.sweep_id == sweep_id)
    session.execute(select(Job.id).where(Job.id.in_(ids)).order_by(Job.id).with_for_update())
    sweep = session.scalars(
        select(Sweep)
        .where(Sweep.id == sweep_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    return sweep, trials_of(session, [sweep])[sweep_id]


def promote(session: Session, each: TrialJob, share: float | None, message: str) -> None:
    """Let a trial train until the next rung, or with None until its end."""
    if each.job.status in FINAL:
        return  # it ended before the rung, and is compared with what it has reached
    if each.job.pause_requested_at is not None:
        _keep_paused(session, each, share, message)
        return
    advance(
        session,
        each.job.id,
        JobStatus.QUEUED,
        message=message,
        pause_at_share=share,
    )
    # No caller sends this message after the commit; housekeeping sends it in its next round.
    outbox.enqueue(session, Work(JOB, each.job.id), send_after_seconds=0)


def _keep_paused(session: Session, each: TrialJob, share: float | None, message: str) -> None:
    """Let a trial wait for its owner, who asked for a pause before it reached the rung."""
    session.execute(
        update(Job)
        .where(Job.id == each.job.id)
        .values(pause_at_share=share, pause_requested_at=None)
        .execution_options(synchronize_session=False)
    )
    told = f"{message} It stays paused, as was requested."
    append_events(session, each.job.id, [NewEvent(told)])


def end_trial(session: Session, each: TrialJob, outcome: TrialOutcome, reason: str) -> None:
    """Record how a trial ended. A job that has not ended yet is cancelled, for this reason."""
    each.trial.outcome = outcome
    each.trial.reason = storable(reason)
    session.flush()
    if each.job.status not in FINAL:
        advance(session, each.job.id, JobStatus.CANCELLED, message=reason)


def end_sweep(
    session: Session,
    sweep: Sweep,
    status: SweepStatus,
    *,
    winner: JobId | None = None,
    error: dict[str, str | None] | None = None,
) -> None:
    sweep.status = status
    sweep.winner = winner
    sweep.error = error
    sweep.finished_at = time.time()
    session.flush()
