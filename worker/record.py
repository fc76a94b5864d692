"""Turns what a run says into rows and blobs: the only place where the two vocabularies meet.

Every transaction begins with the claim, so a worker that has lost its job changes nothing. What
events tell stands in `worker.news`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.parity.asking import Candidate
from core.records import claims, events, files, jobs, leases, masks, models
from core.records.claims import Claim
from core.records.database import Database, database_now
from core.records.events import NewEvent
from core.records.ids import checkpoint_model_id, tuned_model_id
from core.records.models import StoredBundle
from core.records.tables import Job
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
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
    RunRestarted,
    RunResumed,
    StepDone,
    StoppedEarly,
)
from core.spec.ids import FileId, ModelId
from core.spec.parity import Parity, ParityReference
from core.storage.blobs import BlobStore
from worker import news
from worker.commit import commit
from worker.coroutines import Interrupted
from worker.disk import DISK_FULL
from worker.launch import archive_of
from worker.resume import ResumeStates

METRICS_FILE = "metrics.csv"
RESULT_FILENAME = "step_metrics.csv"

CheckParity = Callable[[ParityReference | None, Candidate], Parity]
"""Says whether a model is served as it was trained; Interrupted when the worker has to leave."""


class Record:
    """Writes one attempt at one job. `is_complete` once the attempt has ended in the database."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        claim: Claim,
        states: ResumeStates,
        check_parity: CheckParity,
    ) -> None:
        self.is_complete = False
        self._database = database
        self._store = store
        self._claim = claim
        self._states = states
        self._check_parity = check_parity
        self._total_steps = 0
        self._steps_here = 0
        self._first_step_began: float | None = None

    def write_steps(self, steps: Sequence[StepDone]) -> None:
        """Record consecutive steps in one transaction, with a new estimate of the end."""
        last = steps[-1]
        if self._first_step_began is None:
            self._first_step_began = time.monotonic() - sum(step.seconds for step in steps)
        self._steps_here += len(steps)
        seconds_per_step = (time.monotonic() - self._first_step_began) / self._steps_here
        remaining_seconds = (last.total_steps - last.step) * seconds_per_step

        def write(session: Session) -> None:
            estimate = database_now() + remaining_seconds
            leases.hold(session, self._claim, step=last.step, estimated_finish=estimate)
            events.append_events(
                session, self._claim.job_id, [news.step_news(step) for step in steps]
            )

        commit(self._database, write)

    def write(self, event: RunEvent) -> None:
        """Record any other event. StaleClaim when the job is no longer ours."""
        match event:
            case PhaseStarted():
                self._append(news.phase_news(event))
            case DatasetValidated():
                self._total_steps = event.total_steps
                commit(self._database, lambda session: self._start(session, event))
            case MaskAudited():
                commit(self._database, lambda session: self._keep_mask(session, event))
            case ModelReady():
                self._append(news.model_news(event))
            case RunResumed():
                self._append(news.resume_news(event), step=event.step)
            case RunRestarted():
                self._append(news.restart_news(event), step=0)
            case StepDone():
                self.write_steps([event])
            case Evaluated():
                self._append(news.evaluation_news(event, self._total_steps))
            case RowLosses():
                self._append(news.row_news(event))
            case MicroBatchHalved():
                self._append(news.memory_news(event))
            case StoppedEarly():
                self._append(news.early_stop_news(event))
            case CheckpointSaved():
                self._keep_checkpoint(event)
            case ResumeStateSaved():
                self._states.keep(event)
            case RunFinished():
                self._finish(event)
            case RunFailed(code=code) if code == DISK_FULL:
                self.park(event.message)
            case RunFailed():
                self.fail(event.code, event.message, event.param)
            case _:
                assert_never(event)

    def fail(self, code: str, message: str, param: str | None = None) -> None:
        """End the job as failed, for a reason that another attempt would meet again."""
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

    def give_back(self, reason: str) -> None:
        """Let another attempt go on: what stopped this one is no fault of the job's."""
        commit(self._database, lambda session: claims.release(session, self._claim, reason=reason))
        self.is_complete = True

    def park(self, reason: str) -> None:
        """Pause the job because a disk is full."""
        message = f"A disk is full. Free some space, then resume the job. ({reason})"
        commit(self._database, lambda session: claims.park(session, self._claim, message=message))
        self.is_complete = True

    def _append(self, event: NewEvent, **columns: Any) -> None:
        def write(session: Session) -> None:
            leases.hold(session, self._claim, **columns)
            events.append_events(session, self._claim.job_id, [event])

        commit(self._database, write)

    def _start(self, session: Session, event: DatasetValidated) -> None:
        """`validating_files → queued → running`: the run goes on at once, nobody else waits."""
        job = claims.claimed_job(session, self._claim)
        token = self._claim.token
        if job.status == JobStatus.VALIDATING_FILES:
            message = "Files validated, moving job to queued state"
            jobs.advance(session, job.id, JobStatus.QUEUED, message=message, token=token)
        if job.started_at is None:
            events.append_events(session, job.id, [news.dataset_news(event)])
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

    def _keep_checkpoint(self, event: CheckpointSaved) -> None:
        bundle = self._store_bundle(event.folder, f"step-{event.step}")

        def write(session: Session) -> Sequence[str]:
            job = claims.claimed_job(session, self._claim)
            model_id = _model_id(job)
            metrics = news.checkpoint_metrics(event)
            dropped = models.add_checkpoint(
                session,
                job,
                model_id,
                event.step,
                metrics,
                bundle,
                best_step=event.best_step,
                reference=event.reference,
            )
            name = checkpoint_model_id(model_id, event.step)
            message = f"Checkpoint created at step {event.step} with Snapshot ID: {name}"
            events.append_events(session, job.id, [NewEvent(message)])
            return dropped

        try:
            dropped = commit(self._database, write)
        except StaleClaim:
            self._store.delete(bundle.key)
            raise
        for key in dropped:
            self._store.delete(key)

    def _finish(self, event: RunFinished) -> None:
        """Record the model, with what is known of how it is served.

        When the worker has to leave off in between, the attempt stays unfinished.
        """
        bundle = self._store_bundle(event.folder, "final")
        try:
            parity = self._parity(event, bundle)
        except Interrupted:
            self._store.delete(bundle.key)
            return
        except BaseException:
            self._store.delete(bundle.key)
            raise
        self._succeed(event, bundle, parity)
        self.is_complete = True

    def _parity(self, event: RunFinished, bundle: StoredBundle) -> Parity:
        job = commit(self._database, lambda session: claims.claimed_job(session, self._claim))
        candidate = Candidate(
            base=BaseModelSpec.model_validate(job.spec["base"]),
            bundle=BundleRef(key=bundle.key, sha256=bundle.sha256),
            project=job.project_id,
        )
        return self._check_parity(event.reference, candidate)

    def _succeed(self, event: RunFinished, bundle: StoredBundle, parity: Parity) -> None:
        """Blobs first, then everything that names them in one transaction."""
        file_id, file_key = files.new_file_key()
        results = self._store.write_file(file_key, event.folder / METRICS_FILE)

        def write(session: Session) -> None:
            job = claims.claimed_job(session, self._claim)
            model_id = _model_id(job)
            models.add_final_model(session, job, model_id, bundle, parity, event.reference)
            files.add_file(
                session,
                file_id=file_id,
                project_id=job.project_id,
                filename=RESULT_FILENAME,
                purpose="fine-tune-results",
                bytes=results.bytes,
                sha256=results.sha256,
                blob_key=file_key,
                report=None,
            )
            created = NewEvent(f"New fine-tuned model created: {model_id}")
            events.append_events(session, job.id, [news.parity_news(parity, model_id), created])
            jobs.advance(
                session,
                job.id,
                JobStatus.SUCCEEDED,
                message="The job has successfully completed",
                token=self._claim.token,
                fine_tuned_model=model_id,
                result_file=file_id,
                trained_tokens=event.trained_tokens,
            )

        try:
            commit(self._database, write)
        except StaleClaim:
            if self._is_recorded(file_id):
                return  # by this very transaction; the answer to its commit was lost
            self._store.delete(bundle.key)
            self._store.delete(file_key)
            raise

    def _store_bundle(self, folder: Path, name: str) -> StoredBundle:
        key = f"bundles/{self._claim.job_id}/{self._claim.token}/{name}.zip"
        archive = archive_of(folder)
        blob = self._store.write_file(key, archive)
        archive.unlink()  # storage has it now; a long run would keep one for every epoch
        return StoredBundle(blob.key, blob.sha256)

    def _is_recorded(self, file_id: FileId) -> bool:
        with self._database.reading() as session:
            return files.is_recorded(session, file_id)


def _model_id(job: Job) -> ModelId:
    return tuned_model_id(job.spec["base"]["id"], job.project_id, job.suffix, job.id)


def _with_learning_rate(spec: dict[str, Any], event: DatasetValidated) -> dict[str, Any]:
    """Return a stored spec with the numbers that the run has put in place of `"auto"`."""
    numbers = spec["training"]["learning_rate"], spec.get("learning_rate_multiplier")
    if event.learning_rate is None or "auto" not in numbers:
        return spec
    training = spec["training"] | {"learning_rate": event.learning_rate}
    multiplier = event.learning_rate_multiplier
    return spec | {"training": training, "learning_rate_multiplier": multiplier}
