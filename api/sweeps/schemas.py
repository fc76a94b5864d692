"""The bodies of sweeps."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.jobs.schemas import CreateJob, JobError, Suffix
from api.pagination import ListItem
from core.jobs.state import JobStatus
from core.records.sweep_progress import TrialJob
from core.records.tables import Sweep
from core.records.trials import has_reached_rung, results_of
from core.spec.search import SearchSpec
from core.spec.sweep import HalvingSpec, Rung, SweepSpec, SweepStatus
from core.spec.trial import TrialResult
from core.sweeps.rungs import planned_runs

TrialStatus = Literal[
    "queued", "running", "waiting", "paused", "finished", "won", "lost", "failed", "cancelled"
]
"""`waiting`: for the other trials of its rung. `finished`: trained to its end, before it is known
which trial has won."""

_OF_JOBS: dict[str, TrialStatus] = {
    JobStatus.VALIDATING_FILES: "queued",
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.PAUSED: "paused",
    JobStatus.SUCCEEDED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


class CreateSweep(BaseModel):
    """`job` is the body of a job; the values of `search` replace its fields in each trial."""

    model_config = ConfigDict(extra="forbid")

    job: CreateJob
    search: SearchSpec
    halving: HalvingSpec | None = HalvingSpec()
    """None: all trials are trained to their end."""
    suffix: Suffix | None = None
    """Of the models, in place of the job's."""


class TrialObject(BaseModel):
    trial: int
    job_id: str
    parameters: dict[str, Any]
    status: TrialStatus
    results: list[TrialResult]
    reason: str | None


class Winner(BaseModel):
    trial: int
    job_id: str
    fine_tuned_model: str | None


class SweepObject(ListItem):
    object: Literal["fine_tuning.sweep"] = "fine_tuning.sweep"
    created_at: int
    finished_at: int | None
    status: SweepStatus
    job: dict[str, Any]
    search: SearchSpec
    halving: HalvingSpec | None
    rungs: list[Rung]
    rung: int
    """The index of the rung that the trials train for; the number of rungs for the end."""
    planned_runs: float
    """The steps of all trials together if none fails, in complete runs."""
    trials: list[TrialObject]
    winner: Winner | None
    error: JobError | None


def sweep_object(sweep: Sweep, trials: list[TrialJob]) -> SweepObject:
    spec = SweepSpec.model_validate(sweep.spec)
    winners = [each for each in trials if each.job.id == sweep.winner]
    return SweepObject(
        id=sweep.id,
        created_at=int(sweep.created_at),
        finished_at=None if sweep.finished_at is None else int(sweep.finished_at),
        status=SweepStatus(sweep.status),
        job=spec.job,
        search=spec.search,
        halving=spec.halving,
        rungs=list(spec.rungs),
        rung=sweep.rung,
        planned_runs=planned_runs(len(trials), spec.rungs),
        trials=[_trial_object(each) for each in trials],
        winner=_winner(winners[0]) if winners else None,
        error=None if sweep.error is None else JobError.model_validate(sweep.error),
    )


def _trial_object(each: TrialJob) -> TrialObject:
    trial = each.trial
    return TrialObject(
        trial=trial.number,
        job_id=trial.job_id,
        parameters=trial.parameters,
        status=_status(each),
        results=list(results_of(trial)),
        reason=trial.reason,
    )


def _status(each: TrialJob) -> TrialStatus:
    outcome: TrialStatus | None = each.trial.outcome  # type: ignore[assignment]
    if outcome is not None:
        return outcome
    if each.job.status == JobStatus.PAUSED and has_reached_rung(each.job, each.trial):
        return "waiting"
    return _OF_JOBS[each.job.status]


def _winner(each: TrialJob) -> Winner:
    job = each.job
    return Winner(trial=each.trial.number, job_id=job.id, fine_tuned_model=job.fine_tuned_model)
