"""The trial that a job of a sweep is: its results, and whether it waits for other trials.

`core.records.sweeps` has the sweeps.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.records.owned import get_owned
from core.records.tables import Job, Sweep, SweepTrial
from core.spec.ids import JobId
from core.spec.sweep import FIGURES, SweepSpec
from core.spec.trial import TrialResult


def results_of(trial: SweepTrial) -> tuple[TrialResult, ...]:
    """Return the results of a trial, oldest first."""
    return tuple(TrialResult.model_validate(result) for result in trial.results or ())


def has_reached_rung(job: Job, trial: SweepTrial) -> bool:
    """Return whether a job has a result at the rung where it is to pause."""
    results = results_of(trial)
    return bool(results) and results[-1].share == job.pause_at_share


def find_trial(session: Session, job_id: JobId) -> SweepTrial | None:
    """Return the trial that a job is; None if it belongs to no sweep."""
    query = select(SweepTrial).where(SweepTrial.job_id == job_id)
    return session.scalars(query).one_or_none()


def grader_of(session: Session, job: Job) -> str | None:
    """Return the name of the grader by which the sweep of a job compares; None without one."""
    if job.sweep_id is None:
        return None
    sweep = get_owned(session, Sweep, job.project_id, job.sweep_id)
    metric = SweepSpec.model_validate(sweep.spec).metric
    return None if metric in FIGURES else metric


def record_result(session: Session, job_id: JobId, result: TrialResult) -> None:
    """Add a result of the job to its trial. The caller holds the claim on the job."""
    trial = find_trial(session, job_id)
    if trial is not None:
        trial.results = [*(trial.results or ()), result.model_dump()]
        session.flush()
