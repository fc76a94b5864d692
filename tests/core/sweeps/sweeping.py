"""A sweep in a database, and the transactions of its workers made by hand."""

from dataclasses import dataclass, replace

from core.jobs.state import JobStatus
from core.records import claims, jobs, leases, sweeps, trials
from core.records.claims import Claim
from core.records.database import Database
from core.records.ids import new_id
from core.records.jobs import NewJob
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.sweep_progress import TrialJob, trials_of
from core.records.tables import Job, Sweep
from core.spec.ids import SweepId
from core.spec.search import GridSearch
from core.spec.sweep import HalvingSpec, SweepSpec
from core.spec.trial import WHOLE_RUN, TrialResult
from core.sweeps.rungs import rungs_of, share_of

STEPS = 80
"""Of a complete run."""
RATE = "training.learning_rate"


@dataclass(frozen=True)
class Sweeping:
    """A sweep whose trials have these losses at every rung."""

    database: Database
    sweep_id: SweepId
    losses: list[float]

    @property
    def sweep(self) -> Sweep:
        with self.database.reading() as session:
            return get_owned(session, Sweep, DEFAULT_PROJECT, self.sweep_id)

    @property
    def trials(self) -> list[TrialJob]:
        with self.database.reading() as session:
            return trials_of(session, [self.sweep])[self.sweep_id]

    def job_id(self, number: int) -> str:
        return self.trials[number].job.id

    def claim(self) -> Claim | None:
        with self.database.writing() as session:
            return claims.claim_next(session, "worker-1", lease_seconds=1000)

    def begin(self, claim: Claim) -> None:
        with self.database.writing() as session:
            job = claims.claimed_job(session, claim)
            if job.status == JobStatus.VALIDATING_FILES:
                jobs.advance(session, job.id, JobStatus.QUEUED, message="valid", token=claim.token)
            jobs.advance(session, job.id, JobStatus.RUNNING, message="on", token=claim.token)

    def finish(self, claim: Claim) -> None:
        """Reach the rung, or the end of the run."""
        with self.database.writing() as session:
            job = claims.claimed_job(session, claim)
            share = job.pause_at_share
            loss = self.losses[self._number(claim.job_id)]
            result = TrialResult(
                share=share or WHOLE_RUN,
                step=int((share or WHOLE_RUN) * STEPS),
                loss=loss,
                accuracy=0.5,
            )
            if share is not None:
                claims.stop_at_rung(session, claim, result)
                return
            trials.record_result(session, job.id, result)
            jobs.advance(
                session,
                job.id,
                JobStatus.SUCCEEDED,
                message="done",
                token=claim.token,
                fine_tuned_model=f"ft:{job.id}",
            )

    def fail(self, claim: Claim) -> None:
        error = {"code": "loss_nonfinite", "message": "The loss is infinite.", "param": None}
        with self.database.writing() as session:
            leases.hold(session, claim)
            jobs.advance(
                session,
                claim.job_id,
                JobStatus.FAILED,
                message="failed",
                token=claim.token,
                error=error,
            )

    def run_one(self, *, fails: bool = False) -> bool:
        """Let a worker run the oldest waiting trial; return whether there was one."""
        claim = self.claim()
        if claim is None:
            return False
        self.begin(claim)
        (self.fail if fails else self.finish)(claim)
        return True

    def _number(self, job_id: str) -> int:
        (number,) = (each.trial.number for each in self.trials if each.job.id == job_id)
        return number


def make_sweep(
    database: Database,
    template: NewJob,
    losses: list[float],
    halving: HalvingSpec | None,
) -> Sweeping:
    """Create a sweep with a trial for each loss, as the API does."""
    rungs = rungs_of(len(losses), halving)
    values = [1e-3 * (number + 1) for number in range(len(losses))]
    spec = SweepSpec(
        job={"model": "tiny"},
        search=GridSearch(type="grid", parameters={RATE: values}),
        halving=halving,
        rungs=rungs,
    )
    first = share_of(0, rungs)
    sweep_id = SweepId(new_id("sweep"))
    pause_at = None if first == WHOLE_RUN else first
    new = replace(template, sweep_id=sweep_id, pause_at_share=pause_at)
    with database.writing() as session:
        ids = [jobs.create_job(session, new).id for _ in losses]
        sweep = sweeps.create_sweep(session, sweep_id, template.project_id, spec)
        for number, job_id in enumerate(ids):
            sweeps.add_trial(session, sweep, number, job_id, {RATE: values[number]})
    return Sweeping(database, sweep_id, losses)


def status_of(database: Database, job_id: str) -> str:
    with database.reading() as session:
        return get_owned(session, Job, DEFAULT_PROJECT, job_id).status
