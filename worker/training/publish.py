"""Publishes the checkpoints and the final model of a run.

Blobs are written first, then all rows that name them, in one transaction under the claim.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.inference.targets import Target
from core.jobs.state import JobStatus
from core.parity.asking import Candidate
from core.records import claims, events, files, jobs, models, trials, verdicts
from core.records.claims import Claim
from core.records.database import Database
from core.records.events import NewEvent
from core.records.ids import checkpoint_model_id, tuned_model_id
from core.records.models import StoredBundle
from core.records.tables import Job
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.events import CheckpointSaved, RunFinished, RungReached
from core.spec.held_out import Question
from core.spec.ids import FileId, ModelId
from core.spec.job import JobSpec
from core.spec.parity import Parity, ParityReference
from core.spec.run_request import archive_of
from core.spec.trial import WHOLE_RUN, TrialResult
from core.spec.verdict import Verdict
from core.storage.blobs import Blob, BlobStore
from core.storage.compensation import delete_on_failure
from worker.coroutines import Interrupted
from worker.outages.commit import commit, may_have_committed
from worker.training.event_messages import checkpoint_metrics, parity_message, verdict_message
from worker.verdict.subject import Subject, subject_of
from worker.verdict.trial_score import TrialModel

METRICS_FILE = "metrics.csv"
RESULT_FILENAME = "step_metrics.csv"

CheckParity = Callable[[ParityReference | None, Candidate], Parity]
"""Returns whether a model is served as it was trained; Interrupted if the worker must stop."""

JudgeModel = Callable[[Subject, Parity], Verdict]
"""Compares a model with the one that the job began with; Interrupted if the worker must stop."""

ScoreTrial = Callable[[TrialModel], float | None]
"""Returns the mean score of a trial's model; Interrupted if the worker must stop."""


class Publisher:
    """Publishes the models of one attempt at a job. Raises StaleClaim if the claim has ended."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        claim: Claim,
        check_parity: CheckParity,
        judge_model: JudgeModel,
        score_trial: ScoreTrial,
    ) -> None:
        self._database = database
        self._store = store
        self._claim = claim
        self._check_parity = check_parity
        self._judge_model = judge_model
        self._score_trial = score_trial

    def publish_checkpoint(self, event: CheckpointSaved) -> None:
        """Store and record a checkpoint; delete the ones that it replaces."""
        bundle = self._store_bundle(event.folder, f"step-{event.step}")

        def write(session: Session) -> Sequence[str]:
            job = claims.claimed_job(session, self._claim)
            model_id = _model_id(job)
            dropped = models.add_checkpoint(
                session,
                job,
                model_id,
                event.step,
                checkpoint_metrics(event),
                bundle,
                best_step=event.best_step,
                reference=event.reference,
            )
            name = checkpoint_model_id(model_id, event.step)
            message = f"Checkpoint created at step {event.step} with Snapshot ID: {name}"
            events.append_events(session, job.id, [NewEvent(message)])
            return dropped

        with delete_on_failure(self._store, bundle.key, unless=may_have_committed):
            dropped = commit(self._database, write)
        for key in dropped:
            self._store.delete(key)

    def result_at_rung(self, event: RungReached) -> TrialResult | None:
        """Return what a trial has reached; None if the worker had to stop meanwhile.

        A bundle that the run has written is stored only while its model answers.
        """
        measured = event.model_dump(include={"share", "step", "loss", "accuracy"})
        if event.folder is None:
            return TrialResult.model_validate(measured)
        name = f"rung-{event.step}"
        for token in range(1, self._claim.token):
            self._store.delete(self._key(name, token))  # an attempt that was killed leaves it
        bundle = self._store_bundle(event.folder, name)
        try:
            with delete_on_failure(self._store, bundle.key):
                score = self._score(bundle, event.questions)
        except Interrupted:
            return None
        self._store.delete(bundle.key)
        return TrialResult.model_validate(measured | {"score": score})

    def publish_final(self, event: RunFinished) -> bool:
        """Store, check, judge and record the final model, and end the job as succeeded.

        Returns False, with nothing recorded, if the worker had to stop meanwhile.
        """
        bundle = self._store_bundle(event.folder, "final")
        try:
            with delete_on_failure(self._store, bundle.key):
                parity = self._parity(event, bundle)
                verdict = self._verdict(event, bundle, parity)
                score = self._score(bundle, event.held_out.questions if event.held_out else ())
        except Interrupted:
            return False
        self._record_final(event, bundle, parity, verdict, score)
        return True

    def _parity(self, event: RunFinished, bundle: StoredBundle) -> Parity:
        job = commit(self._database, lambda session: claims.claimed_job(session, self._claim))
        candidate = Candidate(
            base=BaseModelSpec.model_validate(job.spec["base"]),
            bundle=BundleRef(key=bundle.key, sha256=bundle.sha256),
            project=job.project_id,
        )
        return self._check_parity(event.reference, candidate)

    def _verdict(self, event: RunFinished, bundle: StoredBundle, parity: Parity) -> Verdict | None:
        """Return the verdict; None for a run of a version without verdicts."""
        facts = event.held_out
        if facts is None:
            return None

        def read(session: Session) -> Subject:
            job = claims.claimed_job(session, self._claim)
            return subject_of(session, job, _model_id(job), bundle, facts)

        return self._judge_model(commit(self._database, read), parity)

    def _score(self, bundle: StoredBundle, questions: Sequence[Question]) -> float | None:
        """Return the score of a model by the grader of its sweep; None for a job without one."""

        def read(session: Session) -> TrialModel | None:
            job = claims.claimed_job(session, self._claim)
            name = trials.grader_of(session, job)
            if name is None:
                return None
            spec = JobSpec.model_validate(job.spec)
            (grader,) = (each for each in spec.evaluation.graders if each.name == name)
            ref = BundleRef(key=bundle.key, sha256=bundle.sha256)
            target = Target(_model_id(job), spec.base, ref)
            return TrialModel(job.project_id, spec, grader, target, questions)

        model = commit(self._database, read)
        return None if model is None else self._score_trial(model)

    def _record_final(
        self,
        event: RunFinished,
        bundle: StoredBundle,
        parity: Parity,
        verdict: Verdict | None,
        score: float | None,
    ) -> None:
        file_id, file_key = files.new_file_key()
        with delete_on_failure(self._store, bundle.key, file_key, unless=may_have_committed):
            results = self._store.write_file(file_key, event.folder / METRICS_FILE)

            def write(session: Session) -> None:
                job = claims.claimed_job(session, self._claim)
                model_id = _model_id(job)
                models.add_final_model(session, job, model_id, bundle, parity, event.reference)
                messages = [parity_message(parity, model_id)]
                if verdict is not None:
                    verdicts.add_verdict(session, job, model_id, verdict)
                    messages.append(verdict_message(verdict, model_id))
                _add_results(session, job, file_id, results)
                if job.sweep_id is not None:
                    trials.record_result(session, job.id, _result(event, score))
                messages.append(NewEvent(f"New fine-tuned model created: {model_id}"))
                events.append_events(session, job.id, messages)
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
                if not self._is_recorded(file_id):
                    raise
                # This transaction itself ended the claim, but the response to its commit was lost.

    def _is_recorded(self, file_id: FileId) -> bool:
        with self._database.reading() as session:
            return files.is_recorded(session, file_id)

    def _key(self, name: str, token: int) -> str:
        return f"bundles/{self._claim.job_id}/{token}/{name}.zip"

    def _store_bundle(self, folder: Path, name: str) -> StoredBundle:
        key = self._key(name, self._claim.token)
        archive = archive_of(folder)
        blob = self._store.write_file(key, archive)
        archive.unlink()  # it is in storage; a long run would keep one per epoch
        return StoredBundle(blob.key, blob.sha256)


def _add_results(session: Session, job: Job, file_id: FileId, results: Blob) -> None:
    files.add_file(
        session,
        file_id=file_id,
        project_id=job.project_id,
        filename=RESULT_FILENAME,
        purpose="fine-tune-results",
        bytes=results.bytes,
        sha256=results.sha256,
        blob_key=results.key,
        report=None,
    )


def _result(event: RunFinished, score: float | None) -> TrialResult:
    """Return the result of a trial that was trained to its end."""
    return TrialResult(
        share=WHOLE_RUN,
        step=event.step or 0,
        loss=event.validation_loss,
        accuracy=event.validation_accuracy,
        score=score,
    )


def _model_id(job: Job) -> ModelId:
    return tuned_model_id(job.requested_model, job.project_id, job.suffix, job.id)
