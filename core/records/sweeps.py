"""Sweeps as their owners see them: creation, lists, pause, resume, cancellation.

`core.records.sweep_progress` has the writes that follow from the results of trials.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.state import FINAL, JobStatus
from core.records import pauses
from core.records.owned import get_owned
from core.records.pages import Page, page
from core.records.sweep_progress import TrialJob, end_sweep, end_trial, lock_sweep
from core.records.tables import Sweep, SweepTrial
from core.records.trials import has_reached_rung
from core.spec.ids import JobId, ProjectId, SweepId
from core.spec.search import Parameters
from core.spec.sweep import SweepSpec, SweepStatus
from core.spec.trial import TrialOutcome


def create_sweep(session: Session, sweep_id: SweepId, project: ProjectId, spec: SweepSpec) -> Sweep:
    """Create a sweep without trials."""
    sweep = Sweep(
        id=sweep_id,
        project_id=project,
        status=SweepStatus.RUNNING,
        spec=spec.model_dump(mode="json"),
    )
    session.add(sweep)
    session.flush()
    return sweep


def add_trial(
    session: Session, sweep: Sweep, number: int, job_id: JobId, parameters: Parameters
) -> None:
    """Add a job as a trial. It was created with the id of the sweep."""
    trial = SweepTrial(
        sweep_id=sweep.id,
        number=number,
        project_id=sweep.project_id,
        job_id=job_id,
        parameters=parameters,
    )
    session.add(trial)
    session.flush()


def list_sweeps(
    session: Session, project: ProjectId, *, after: str | None, limit: int
) -> Page[Sweep]:
    return page(session, select(Sweep), Sweep, project, after=after, limit=limit)


def cancel_sweep(session: Session, project: ProjectId, sweep_id: SweepId) -> Sweep:
    """Cancel the sweep and the jobs of it that have not ended; Conflict if it has ended."""
    sweep, trials = _unfinished(session, project, sweep_id, "cancelled")
    for each in trials:
        if each.trial.outcome is None and each.job.status not in FINAL:
            end_trial(session, each, TrialOutcome.CANCELLED, "The sweep was cancelled.")
    end_sweep(session, sweep, SweepStatus.CANCELLED)
    return sweep


def pause_sweep(session: Session, project: ProjectId, sweep_id: SweepId) -> Sweep:
    """Pause the sweep and its jobs; Conflict if it has ended or is paused."""
    sweep, trials = _unfinished(session, project, sweep_id, "paused")
    if sweep.status == SweepStatus.PAUSED:
        raise _conflict(f"Sweep {sweep_id} is already paused.")
    for each in trials:
        job = each.job
        if job.status not in FINAL and job.paused_at is None and job.pause_requested_at is None:
            pauses.pause_job(session, project, job.id)
    sweep.status = SweepStatus.PAUSED
    session.flush()
    return sweep


def resume_sweep(session: Session, project: ProjectId, sweep_id: SweepId) -> Sweep:
    """Resume a paused sweep and its jobs, but for those that wait at a rung; else Conflict."""
    sweep, trials = _unfinished(session, project, sweep_id, "resumed")
    if sweep.status != SweepStatus.PAUSED:
        raise _conflict(f"Sweep {sweep_id} is {sweep.status} and not paused.")
    for each in trials:
        job = each.job
        is_paused = job.status == JobStatus.PAUSED or job.pause_requested_at is not None
        if is_paused and not has_reached_rung(job, each.trial):
            pauses.resume_job(session, project, job.id)
        elif is_paused:
            pauses.withdraw_request(session, job.id)
    sweep.status = SweepStatus.RUNNING
    session.flush()
    return sweep


def _unfinished(
    session: Session, project: ProjectId, sweep_id: SweepId, verb: str
) -> tuple[Sweep, list[TrialJob]]:
    get_owned(session, Sweep, project, sweep_id)
    sweep, trials = lock_sweep(session, sweep_id)
    if sweep.finished_at is not None:
        raise _conflict(f"Sweep {sweep_id} has ended ({sweep.status}) and cannot be {verb}.")
    return sweep, trials


def _conflict(message: str) -> Conflict:
    return Conflict(message, param="sweep_id", code="invalid_sweep_status")
