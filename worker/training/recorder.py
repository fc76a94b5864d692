"""Stores the events of a run in the database. No other module translates between the two.

Every transaction begins with the claim, so a worker that has lost its job changes nothing.
`event_messages` has the texts of events; `publish` and `resume` store models and resume states.
"""

from collections.abc import Sequence
from typing import Any, assert_never

from sqlalchemy.orm import Session

from core.jobs.state import JobStatus
from core.records import claims, events, jobs, leases, masks
from core.records.claims import Claim
from core.records.database import Database, database_now
from core.records.events import NewEvent
from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    Evaluated,
    MaskAudited,
    MicroBatchHalved,
    ModelReady,
    PhaseStarted,
    ResumeStateSaved,
    RowLosses,
    RunEvent,
    RunFailed,
    RunFinished,
    RungReached,
    RunRestarted,
    RunResumed,
    StepDone,
    StoppedEarly,
)
from worker.outages.commit import commit
from worker.outages.full_disk import DISK_FULL
from worker.training import event_messages
from worker.training.pace import Pace
from worker.training.publish import Publisher
from worker.training.resume import ResumeStates


class Recorder:
    """Records one attempt at a job. `is_complete` is true once the attempt has ended there."""

    def __init__(
        self, database: Database, claim: Claim, states: ResumeStates, publisher: Publisher
    ) -> None:
        self.is_complete = False
        self._database = database
        self._claim = claim
        self._states = states
        self._publisher = publisher
        self._total_steps = 0
        self._pace = Pace()

    def write_steps(self, steps: Sequence[StepDone]) -> None:
        """Record consecutive steps in one transaction, with a new estimate of the end."""
        remaining_seconds = self._pace.remaining_seconds(steps)
        messages = [event_messages.step_message(step) for step in steps]

        def write(session: Session) -> None:
            estimate = database_now() + remaining_seconds
            leases.hold(session, self._claim, step=steps[-1].step, estimated_finish=estimate)
            events.append_events(session, self._claim.job_id, messages)

        commit(self._database, write)

    def write(self, event: RunEvent) -> None:
        """Record any other event. Raises StaleClaim if the claim has ended."""
        match event:
            case PhaseStarted():
                self._append(event_messages.phase_message(event))
            case DatasetValidated():
                self._total_steps = event.total_steps
                commit(self._database, lambda session: self._start(session, event))
            case MaskAudited():
                commit(self._database, lambda session: self._keep_mask(session, event))
            case ModelReady():
                self._append(event_messages.model_message(event))
            case RunResumed():
                self._append(event_messages.resume_message(event), step=event.step)
            case RunRestarted():
                self._append(event_messages.restart_message(event), step=0)
            case StepDone():
                self.write_steps([event])
            case Evaluated():
                self._append(event_messages.evaluation_message(event, self._total_steps))
            case RowLosses():
                self._append(event_messages.row_message(event))
            case MicroBatchHalved():
                self._append(event_messages.memory_message(event))
            case StoppedEarly():
                self._append(event_messages.early_stop_message(event))
            case CheckpointSaved():
                self._publisher.publish_checkpoint(event)
            case ResumeStateSaved():
                self._states.keep(event)
            case RungReached():
                self._stop_at_rung(event)
            case RunFinished():
                self.is_complete = self._publisher.publish_final(event)
            case RunFailed(code=code) if code == DISK_FULL:
                self.park(event.message)
            case RunFailed():
                self.fail(event.code, event.message, event.param)
            case _:
                assert_never(event)

    def fail(self, code: str, message: str, param: str | None = None) -> None:
        """End the job as failed, with an error that another attempt would get too."""
        error = {"code": code, "message": message, "param": param}

        def write(session: Session) -> None:
            jobs.advance(
                session,
                self._claim.job_id,
                JobStatus.FAILED,
                message=f"The job failed: {message}",
                level="error",
                token=self._claim.token,
                error=error,
            )

        commit(self._database, write)
        self.is_complete = True

    def release(self, reason: str) -> None:
        """Return the job to the queue, because this attempt ended for a reason outside the job."""
        commit(self._database, lambda session: claims.release(session, self._claim, reason=reason))
        self.is_complete = True

    def park(self, reason: str) -> None:
        """Pause the job because a disk is full."""
        message = f"A disk is full. Free some space, then resume the job. ({reason})"
        commit(self._database, lambda session: claims.park(session, self._claim, message=message))
        self.is_complete = True

    def _stop_at_rung(self, event: RungReached) -> None:
        result = self._publisher.result_at_rung(event)
        if result is None:
            return
        commit(self._database, lambda session: claims.stop_at_rung(session, self._claim, result))
        self.is_complete = True

    def _append(self, event: NewEvent, **columns: Any) -> None:
        def write(session: Session) -> None:
            leases.hold(session, self._claim, **columns)
            events.append_events(session, self._claim.job_id, [event])

        commit(self._database, write)

    def _start(self, session: Session, event: DatasetValidated) -> None:
        """`validating_files → queued → running` in one transaction, so it stays ours."""
        job = claims.claimed_job(session, self._claim)
        token = self._claim.token
        if job.status == JobStatus.VALIDATING_FILES:
            message = "Files validated, moving job to queued state"
            jobs.advance(session, job.id, JobStatus.QUEUED, message=message, token=token)
        if job.started_at is None:
            events.append_events(session, job.id, [event_messages.dataset_message(event)])
        jobs.advance(
            session,
            job.id,
            JobStatus.RUNNING,
            message="Fine-tuning job started",
            token=token,
            total_steps=event.total_steps,
            spec=_with_learning_rate(job.spec, event),
            started_at=job.started_at or database_now(),
        )

    def _keep_mask(self, session: Session, event: MaskAudited) -> None:
        job = claims.claimed_job(session, self._claim)
        masks.record_job_mask(session, job, event.rows)


def _with_learning_rate(spec: dict[str, Any], event: DatasetValidated) -> dict[str, Any]:
    """Return a stored spec with the numbers that the run uses in place of `"auto"`."""
    numbers = spec["training"]["learning_rate"], spec.get("learning_rate_multiplier")
    if event.learning_rate is None or "auto" not in numbers:
        return spec
    training = spec["training"] | {"learning_rate": event.learning_rate}
    multiplier = event.learning_rate_multiplier
    return spec | {"training": training, "learning_rate_multiplier": multiplier}
