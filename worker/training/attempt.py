"""Runs one job from claim to end: claim → workspace → launch → supervise → finish."""

import logging
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.errors import StaleClaim, TunesmithError, Unavailable
from core.parity.asking import Candidate
from core.records import claims, trials
from core.records.claims import Claim
from core.records.owned import get_owned
from core.records.tables import File, Job
from core.spec.ids import FileId
from core.spec.job import JobSpec
from core.spec.run_request import RunRequest
from core.spec.workspace import Workspace
from core.storage.blobs import STORAGE_UNAVAILABLE, BlobStore
from core.sweeps.advance import advance_sweeps
from worker.bundles import fetch_bundle
from worker.context import Worker
from worker.downloads.local_bases import report_local_bases
from worker.engine_client.find import EngineAddress, find_engine
from worker.launch import Child, launch
from worker.outages.commit import commit
from worker.outages.full_disk import is_disk_full
from worker.outages.retrying_store import RetryingStore
from worker.parity.check import ParityCheck
from worker.training.lease import JobLease
from worker.training.publish import Publisher
from worker.training.recorder import Recorder
from worker.training.resume import ResumeStates
from worker.training.supervise import supervise
from worker.verdict.trial_score import trial_score
from worker.verdict.verdict import verdict_check

logger = logging.getLogger(__name__)

STOP_SECONDS = 15.0
"""The time for a child to finish its micro-batch and save its state when the worker stops."""

PAUSE_SECONDS = 600.0
"""The same for a pause, which is less urgent."""


def train_next_job(worker: Worker) -> bool:
    """Claim and run the oldest waiting job; return whether there was one."""
    settings = worker.settings
    with suppress(SQLAlchemyError):  # `commit` retries
        report_local_bases(worker.database, settings)  # a download may have ended just now
    claim = commit(
        worker.database,
        lambda session: claims.claim_next(session, settings.worker_id, settings.lease_seconds),
    )
    if claim is None:
        return False
    logger.info("Claimed %s with token %d.", claim.job_id, claim.token)
    train(worker, claim)
    with suppress(SQLAlchemyError):  # housekeeping repeats it
        advance_sweeps(worker.database)  # the job may have been the last trial of a rung
    return True


def train(worker: Worker, claim: Claim) -> None:
    """Run the claimed job. The claim has ended when this returns.

    If the claim is lost (the job was cancelled, or given to another worker), nothing is recorded:
    the child is killed, and the workspace and unrecorded blobs are deleted.
    """
    folder = worker.settings.work_folder / claim.job_id / str(claim.token)
    workspace = Workspace(folder=folder.absolute())
    lease = JobLease(worker.database, claim, worker.settings)

    def should_stop() -> bool:
        return worker.stopping.is_set() or lease.lost.is_set()

    store = RetryingStore(worker.store, should_stop)
    states = ResumeStates(worker.database, store, claim)

    def engine_for(model: Candidate) -> EngineAddress | None:
        return find_engine(worker.database, model.base, model.bundle, worker.settings.engine_key)

    check_parity = ParityCheck(engine_for, should_stop)
    judge_model = verdict_check(worker, should_stop)
    score_trial = trial_score(worker, should_stop)
    publisher = Publisher(worker.database, store, claim, check_parity, judge_model, score_trial)
    recorder = Recorder(worker.database, claim, states, publisher)
    try:
        with lease:
            request = _prepare(worker, store, claim, workspace, states)
            _run(worker, claim, request, recorder, lease)
        logger.info("The attempt at %s has ended.", claim.job_id)
    except StaleClaim:
        logger.info("The claim on %s was lost; its run was stopped.", claim.job_id)
    except Exception as error:
        _record_error(recorder, error)
    finally:
        shutil.rmtree(workspace.folder, ignore_errors=True)


def _run(
    worker: Worker, claim: Claim, request: RunRequest, recorder: Recorder, lease: JobLease
) -> None:
    def grace_period() -> float | None:
        if worker.stopping.is_set():
            return STOP_SECONDS
        return PAUSE_SECONDS if lease.pause_requested.is_set() else None

    child = launch(request)
    try:
        lease.guard(child)
        status = supervise(child, recorder, grace_period)
    finally:
        child.kill()
        child.wait()
        if tail := child.log_tail():
            logger.info("The log of the child of %s ends with:\n%s", claim.job_id, tail)
    if recorder.is_complete:
        return
    if lease.lost.is_set():
        raise StaleClaim(f"{claim.job_id} was cancelled or given to another worker.")
    if grace_period() is not None:
        reason = "The worker was stopped." if worker.stopping.is_set() else "The run was stopped."
        commit(worker.database, lambda session: claims.release(session, claim, reason=reason))
        return
    reason = _describe_crash(child, status)
    logger.error("%s: %s", claim.job_id, reason)
    commit(worker.database, lambda session: claims.report_crash(session, claim, reason=reason))


def _prepare(
    worker: Worker, store: BlobStore, claim: Claim, workspace: Workspace, states: ResumeStates
) -> RunRequest:
    """Fetch the inputs of the job into an empty workspace: files, parent, resume state."""

    def read(session: Session) -> tuple[Job, str, str | None, bool]:
        job = claims.claimed_job(session, claim)

        def blob_key(file_id: FileId, param: str) -> str:
            return get_owned(session, File, job.project_id, file_id, param=param).blob_key

        train_key = blob_key(job.training_file, "training_file")
        validation = job.validation_file
        validation_key = blob_key(validation, "validation_file") if validation else None
        has_grader = trials.grader_of(session, job) is not None
        return job, train_key, validation_key, has_grader

    job, train_key, validation_key, has_grader = commit(worker.database, read)
    stored = job.spec
    spec = JobSpec.model_validate(stored)
    _empty(workspace.folder)
    store.fetch(train_key, workspace.train_file)
    if validation_key is not None:
        store.fetch(validation_key, workspace.validation_file)
    if spec.parent is not None:
        fetch_bundle(store, spec.parent, workspace.parent_folder)
    states.fetch(workspace)
    source = stored["base"]["source"]
    settings = worker.settings
    return RunRequest(
        spec,
        workspace,
        settings.threads,
        settings.measured_in.absolute(),
        source,
        settings.engine_busy_file,
        job.pause_at_share,
        asks_at_rung=has_grader,
    )


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _record_error(recorder: Recorder, error: Exception) -> None:
    """Release the job if storage is unavailable; pause it if a disk is full; else fail it."""
    try:
        match error:
            case Unavailable(code=code) if code == STORAGE_UNAVAILABLE:
                recorder.release(error.message)
            case TunesmithError():
                recorder.fail(error.code, error.message, error.param)
            case _ if is_disk_full(error):
                recorder.park(f"{type(error).__name__}: {error}")
            case _:
                logger.error("The job could not be run.", exc_info=error)
                recorder.fail("internal_error", f"{type(error).__name__}: {error}")
    except StaleClaim:
        logger.info("The claim ended before the result of the job was recorded.")


def _describe_crash(child: Child, status: int) -> str:
    """Describe how the child died, with the end of its log."""
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += " (the machine may have run out of memory)"
    else:
        how = f"exited with status {status} before the run was complete"
    tail = child.log_tail()
    return f"The training process {how}." + (f" The end of its log: {tail}" if tail else "")
