"""The housekeeping process: `python -m worker.housekeeping`. It cleans up after other processes.

Any number may run, because each round is safe to repeat. All decisions come from the database.
"""

import logging
import shutil
import signal
import time
from pathlib import Path
from threading import Event

from sqlalchemy.exc import SQLAlchemyError

from core.errors import Conflict, NotFound, Unavailable
from core.jobs.broker import Broker
from core.records import (
    abandoned,
    base_downloads,
    batch_progress,
    claims,
    distillation_progress,
    engines,
    eval_progress,
    files,
    jobs,
    leases,
    outbox,
    remembered,
    responses,
    resume_states,
    stored_completions,
    tasks,
    workers,
)
from core.records.claims import Claim
from core.records.database import Database
from core.spec.ids import JobId, TaskId
from core.storage.blobs import BlobStore
from core.storage.open import open_store
from core.sweeps.advance import advance_sweeps
from worker.settings import WorkerSettings
from worker.tasks.attempt import TASK_FOLDER

logger = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
SWEEP_SECONDS = 60.0
ABANDONED_AFTER_SECONDS = 86_400.0
"""The age of an upload that counts as abandoned; far longer than its pauses, or its check."""


def rescue_work(database: Database) -> None:
    """Return the jobs and tasks of dead workers to their queues."""
    with database.writing() as session:
        rescued: list[str] = [*claims.rescue_expired(session)]
        rescued += [work.id for work in tasks.rescue_expired(session)]
    for work_id in rescued:
        logger.warning("Rescued %s from a dead worker.", work_id)


def settle_waiting_jobs(database: Database) -> None:
    """Download the bases that jobs wait for, or fail the jobs that wait in vain."""
    with database.writing() as session:
        base_downloads.settle_waiting_jobs(session)


def move_sweeps_on(database: Database) -> None:
    """Compare the trials of sweeps that wait for it. The worker of a trial may not have done so."""
    for sweep_id in advance_sweeps(database):
        logger.info("%s was advanced.", sweep_id)


def send_messages(database: Database, broker: Broker) -> None:
    """Send all wake-up messages that are due. They stay due if the broker is unavailable."""
    with database.reading() as session:
        due = outbox.due(session)
    for work in due:
        broker.wake(work)
        with database.writing() as session:
            outbox.mark_sent(session, work)


def forget_workers(database: Database, settings: WorkerSettings) -> None:
    """Delete the rows of workers without a heartbeat for the length of a lease."""
    with database.writing() as session:
        workers.forget_dead_workers(session, settings.lease_seconds)


def forget_engines(database: Database) -> None:
    """Delete the rows of engines that no longer send heartbeats."""
    with database.writing() as session:
        engines.forget_dead_engines(session)


def forget_tasks(database: Database) -> None:
    """Delete the tasks that ended longer ago than tasks of their kind are kept."""
    with database.writing() as session:
        tasks.forget_old_tasks(session)


def forget_requests(database: Database) -> None:
    """Delete the answers that no repeated request asks for any more."""
    with database.writing() as session:
        remembered.forget_old_requests(session)


def forget_responses(database: Database) -> None:
    """Delete the stored responses and chat completions that have expired."""
    with database.writing() as session:
        responses.forget_expired_responses(session)
        stored_completions.forget_expired_completions(session)


def delete_resume_states(database: Database, store: BlobStore) -> None:
    """Delete the resume states of jobs that have ended in any way."""
    with database.reading() as session:
        left = resume_states.left_by_ended_jobs(session)
    for job_id, keys in left.items():
        for key in keys:
            store.delete(key)
        with database.writing() as session:
            resume_states.forget(session, job_id)


def fail_abandoned_batches(database: Database) -> None:
    """Fail the batches whose task has failed for good."""
    with database.writing() as session:
        for batch_id in batch_progress.fail_abandoned(session):
            logger.warning("%s failed with its task.", batch_id)


def fail_abandoned_eval_runs(database: Database) -> None:
    """Fail the eval runs whose task has failed for good."""
    with database.writing() as session:
        for run_id in eval_progress.fail_abandoned_runs(session):
            logger.warning("%s failed with its task.", run_id)


def fail_abandoned_distillations(database: Database) -> None:
    """Fail the distillations whose task has failed for good."""
    with database.writing() as session:
        for distillation_id in distillation_progress.fail_abandoned_distillations(session):
            logger.warning("%s failed with its task.", distillation_id)


def settle_failed_tasks(database: Database, store: BlobStore) -> None:
    """Keep what exports and made models had completed when their last worker died.

    Blobs that were not complete are deleted.
    """
    with database.writing() as session:
        for task_id in abandoned.keep_completed(session):
            logger.warning("%s had been completed before its worker died.", task_id)
    with database.reading() as session:
        left = abandoned.left_by_failed(session)
    for task_id, keys in left.items():
        for key in keys:
            store.delete(key)
        with database.writing() as session:
            abandoned.forget_left(session, task_id)


def delete_batch_parts(database: Database, store: BlobStore) -> None:
    """Delete the parts of batches that have ended; their files have the content."""
    with database.reading() as session:
        parts = batch_progress.left_by_ended_batches(session)
    for part in parts:
        for key in (part.output_key, part.error_key):
            if key is not None:
                store.delete(key)
        with database.writing() as session:
            batch_progress.forget_part(session, part)


def delete_expired_files(database: Database, store: BlobStore) -> None:
    """Delete the files whose time is over, unless a job or a batch needs them."""
    with database.reading() as session:
        expired = files.expired_files(session)
    for project, file_id in expired:
        try:
            with database.writing() as session:
                file = files.delete_file(session, project, file_id)
        except (Conflict, NotFound):
            continue  # in the meantime a job was created with it, or it was deleted
        store.delete(file.blob_key)
        logger.info("Deleted the expired file %s.", file_id)


def sweep_workspaces(database: Database, work_folder: Path) -> None:
    """Delete the workspaces of ended claims, which killed workers of this machine have left.

    `<job>/<token>/` for jobs, `tasks/<task>.<token>/` for tasks.
    """
    _sweep_tasks(database, work_folder / TASK_FOLDER)
    for job_folder in work_folder.glob("ftjob-*"):
        job_id = JobId(job_folder.name)
        with database.reading() as session:
            dead = [
                workspace
                for workspace in _workspaces(job_folder)
                if not leases.is_current(session, Claim(job_id, int(workspace.name)))
            ]
            if jobs.is_over(session, job_id):
                dead = [job_folder]
        for folder in dead:
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("Removed the workspace %s.", folder.relative_to(work_folder))


def _sweep_tasks(database: Database, folder: Path) -> None:
    for workspace in folder.glob("*"):
        task_id, _, token = workspace.name.partition(".")
        with database.reading() as session:
            is_alive = token == str(tasks.held_token(session, TaskId(task_id)))
        if not is_alive:
            shutil.rmtree(workspace, ignore_errors=True)
            logger.info("Removed the workspace %s.", workspace.name)


def _workspaces(job_folder: Path) -> list[Path]:
    """Return the workspaces in a job's folder; none if it is not a folder, or was deleted."""
    try:
        return [path for path in job_folder.iterdir() if path.name.isdecimal()]
    except OSError:
        return []


def run(settings: WorkerSettings, stopping: Event) -> None:
    """Run a round every second until `stopping` is set."""
    database = Database(settings.database_url)
    broker = Broker(settings.broker_url)
    store = open_store(settings.storage_folder, settings.storage_url)
    last_sweep = -SWEEP_SECONDS
    while not stopping.wait(ROUND_SECONDS):
        try:
            rescue_work(database)
            settle_waiting_jobs(database)
            move_sweeps_on(database)
            send_messages(database, broker)
            if time.monotonic() - last_sweep >= SWEEP_SECONDS:
                last_sweep = time.monotonic()
                forget_workers(database, settings)
                forget_engines(database)
                forget_tasks(database)
                forget_requests(database)
                forget_responses(database)
                delete_resume_states(database, store)
                fail_abandoned_batches(database)
                fail_abandoned_eval_runs(database)
                fail_abandoned_distillations(database)
                settle_failed_tasks(database, store)
                delete_batch_parts(database, store)
                delete_expired_files(database, store)
                sweep_workspaces(database, settings.work_folder)
                store.sweep(ABANDONED_AFTER_SECONDS)
        except (SQLAlchemyError, Unavailable, OSError) as error:
            logger.warning("This round was aborted: %s", error)
    database.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run(WorkerSettings(), stopping)


if __name__ == "__main__":
    main()
