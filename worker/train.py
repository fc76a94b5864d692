"""One job from claim to end: claim → workspace → launch → supervise → finish."""

import logging
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from sqlalchemy.orm import Session

from core.errors import StaleClaim, TunesmithError
from core.records import claims, files
from core.records.claims import Claim
from core.records.database import Database
from core.spec.run import JobSpec, Workspace
from core.storage.blobs import BlobStore
from worker.commit import commit
from worker.launch import Child, Order, launch
from worker.lease import Lease
from worker.record import Record
from worker.settings import WorkerSettings
from worker.supervise import supervise

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """What a worker process works with. `stopping` is set once it has been asked to end."""

    settings: WorkerSettings
    database: Database
    store: BlobStore
    stopping: Event


def train_waiting_jobs(worker: Worker) -> None:
    """Claim and run the oldest waiting job, then the next, until none waits."""
    settings = worker.settings
    while not worker.stopping.is_set():
        claim = commit(
            worker.database,
            lambda session: claims.claim_next(session, settings.worker_id, settings.lease_seconds),
        )
        if claim is None:
            return
        logger.info("Claimed %s with token %d.", claim.job_id, claim.token)
        train(worker, claim)


def train(worker: Worker, claim: Claim) -> None:
    """Run the claimed job. Whatever happens, the claim is over afterwards.

    A job that another holds by then, or that was cancelled, is dropped in silence: its
    child, its workspace and its unrecorded blobs go, and nothing is written.
    """
    workspace = worker.settings.work_folder / claim.job_id / str(claim.token)
    record = Record(worker.database, worker.store, claim)
    try:
        with Lease(worker.database, claim, worker.settings) as lease:
            _run(worker, claim, Workspace(folder=workspace.absolute()), record, lease)
        logger.info("%s is done.", claim.job_id)
    except StaleClaim:
        logger.info("%s is no longer ours; its run was ended.", claim.job_id)
    except TunesmithError as error:
        _fail(record, error.code, error.message, error.param)
    except Exception as error:
        logger.exception("%s could not be run.", claim.job_id)
        _fail(record, "internal_error", f"{type(error).__name__}: {error}", None)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _run(worker: Worker, claim: Claim, workspace: Workspace, record: Record, lease: Lease) -> None:
    order = _prepare(worker, claim, workspace)
    child = launch(order)
    try:
        lease.guard(child)
        status = supervise(child, record, worker.stopping)
    finally:
        child.kill()
        child.wait()
        if words := child.log_tail():
            logger.info("The child of %s wrote:\n%s", claim.job_id, words)
    if record.is_complete:
        return
    if lease.lost.is_set():
        raise StaleClaim(f"{claim.job_id} was cancelled or given to another worker.")
    if worker.stopping.is_set():
        message = "The worker stops; the job waits for another one."
        commit(worker.database, lambda session: claims.release(session, claim, message=message))
        return
    message = _describe_crash(child, status)
    logger.error("%s: %s", claim.job_id, message)
    commit(worker.database, lambda session: claims.report_crash(session, claim, message=message))


def _prepare(worker: Worker, claim: Claim, workspace: Workspace) -> Order:
    """Fetch the job's files into a fresh workspace."""

    def read(session: Session) -> tuple[JobSpec, str, str | None]:
        job = claims.claimed_job(session, claim)

        def blob_key(file_id: str, param: str) -> str:
            return files.get_file(session, job.project_id, file_id, param=param).blob_key

        train_key = blob_key(job.training_file, "training_file")
        validation = job.validation_file
        validation_key = blob_key(validation, "validation_file") if validation else None
        return JobSpec.model_validate(job.spec), train_key, validation_key

    spec, train_key, validation_key = commit(worker.database, read)
    _empty(workspace.folder)
    worker.store.fetch(train_key, workspace.train_file)
    if validation_key is not None:
        worker.store.fetch(validation_key, workspace.validation_file)
    return Order(spec, workspace, worker.settings.threads)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _fail(record: Record, code: str, message: str, param: str | None) -> None:
    try:
        record.fail(code, message, param)
    except StaleClaim:
        logger.info("The job was taken away before its failure could be noted.")


def _describe_crash(child: Child, status: int) -> str:
    """Say how the child died, with the end of its log: all that is known of it."""
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += " (when the machine runs out of memory it does that)"
    else:
        how = f"ended with status {status} before its run was over"
    tail = child.log_tail()
    return f"The training process {how}." + (f" Its last words: {tail}" if tail else "")
