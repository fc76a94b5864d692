"""The operations of the job routes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy.orm import Session
from starlette.responses import Response, StreamingResponse

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.downloads import download
from api.jobs.creation import new_job
from api.jobs.datasets import notices, recheck
from api.jobs.event_stream import event_response, stream_events
from api.jobs.room import require_memory
from api.jobs.schemas import (
    CheckpointObject,
    CreateJob,
    EvaluationObject,
    EventObject,
    JobObject,
    checkpoint_object,
    evaluation_object,
    event_object,
    job_object,
)
from api.metadata import MetadataFilter
from api.models.bases import require_files
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.errors import Conflict, InvalidRequest, NotFound
from core.jobs.state import FINAL
from core.records import events, jobs, models, pauses, verdicts
from core.records.base_downloads import wait_for_download
from core.records.events import NewEvent
from core.records.jobs import NewJob
from core.records.owned import get_owned
from core.records.tables import Job, TunedModel
from core.spec.batch import BatchModel
from core.spec.ids import JobId
from core.storage.blobs import BlobStore
from core.tasks.kinds import JOB, Work

NO_MODELS: Mapping[str, BatchModel] = {}
MAX_EVENT_DIGITS = 9  # no job has more events, so a longer number is invalid


def create(
    state: AppState,
    caller: Caller,
    body: CreateJob,
    grader_models: Mapping[str, BatchModel] = NO_MODELS,
) -> JobObject:
    """Store the job and wake a worker. If the message is lost, housekeeping repeats it.

    The job is checked and planned before the transaction, which locks its files and model again.
    """
    rechecked = recheck(state, caller, body)
    hub_folder = state.settings.hub_folder
    with state.database.reading() as session:
        new = new_job(session, state.catalog, caller, body, rechecked, hub_folder)
        require_memory(session, caller, body, rechecked, new, hub_folder)
        must_download = require_files(session, state, new.spec.base, or_downloadable=True)
        told = notices(session, caller, body, rechecked)
    new = with_models(new, grader_models)
    with state.transaction() as transaction:
        job = job_object(store(transaction, state, new, told, must_download=must_download))
        return remember(transaction.session, caller, job)


def with_models(new: NewJob, grader_models: Mapping[str, BatchModel]) -> NewJob:
    """Return the job with the models that the graders of its evaluation name."""
    if not grader_models:
        return new
    spec = new.spec.model_copy(update={"grader_models": dict(grader_models)})
    return replace(new, spec=spec)


def store(
    transaction: Transaction,
    state: AppState,
    new: NewJob,
    told: Sequence[NewEvent],
    *,
    must_download: bool,
) -> Job:
    """Store a job with its first events, request the download of its base, and wake a worker."""
    session = transaction.session
    job = jobs.create_job(session, new)
    if (reason := new.spec.strategy_reason) is not None:
        told = [NewEvent(f"The planner chose the strategy {reason}."), *told]
    events.append_events(session, job.id, told)
    if must_download:
        download = wait_for_download(session, job)
        transaction.after_commit(partial(state.broker.wake, Work(download.kind, download.id)))
    session.refresh(job)
    transaction.after_commit(partial(state.broker.wake, Work(JOB, job.id)))
    return job


def find(
    session: Session, caller: Caller, *, after: str | None, limit: int, wanted: MetadataFilter
) -> ListOf[JobObject]:
    page = jobs.list_jobs(
        session,
        caller.project,
        after=after,
        limit=limit,
        metadata=wanted.pairs,
        without_metadata=wanted.none,
    )
    return list_of(page, job_object)


def get(session: Session, caller: Caller, job_id: JobId) -> JobObject:
    return job_object(get_owned(session, Job, caller.project, job_id))


def cancel(transaction: Transaction, caller: Caller, job_id: JobId) -> JobObject:
    return job_object(jobs.cancel_job(transaction.session, caller.project, job_id))


def pause(transaction: Transaction, caller: Caller, job_id: JobId) -> JobObject:
    return job_object(pauses.pause_job(transaction.session, caller.project, job_id))


def resume(transaction: Transaction, state: AppState, caller: Caller, job_id: JobId) -> JobObject:
    """Resume a paused job and wake a worker, which finds nothing if the pause had not begun."""
    job = pauses.resume_job(transaction.session, caller.project, job_id)
    transaction.after_commit(partial(state.broker.wake, Work(JOB, job.id)))
    return job_object(job)


def list_events(
    session: Session, caller: Caller, job_id: JobId, *, after: str | None, limit: int
) -> ListOf[EventObject]:
    job = get_owned(session, Job, caller.project, job_id)
    before = None if after is None else _sequence_of(job, after)
    page = events.list_events(session, job.id, before=before, limit=limit)
    return list_of(page, event_object)


def event_stream(
    state: AppState, caller: Caller, job_id: JobId, last_event_id: str | None
) -> StreamingResponse:
    """Stream the events after number `last_event_id`."""
    with state.database.reading() as session:
        job = get_owned(session, Job, caller.project, job_id)
    cursor = _event_cursor(last_event_id)
    return event_response(stream_events(state, caller, job.id, cursor))


def _sequence_of(job: Job, event_id: str) -> int:
    """Return the number of a job's event from its id."""
    start = f"ftevent-{job.id.removeprefix('ftjob-')}-"
    number = event_id.removeprefix(start)
    if not (
        event_id.startswith(start)
        and _is_event_number(number)
        and 1 <= int(number) <= job.event_count
    ):
        raise NotFound(f"Job {job.id} has no event {event_id[:80]!r}.", param="after")
    return int(number)


def _is_event_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_EVENT_DIGITS


def list_checkpoints(
    session: Session, caller: Caller, job_id: JobId, *, after: str | None, limit: int
) -> ListOf[CheckpointObject]:
    job = get_owned(session, Job, caller.project, job_id)
    page = models.list_checkpoints(session, job.id, after=after, limit=limit)
    return list_of(page, checkpoint_object)


def evaluation(session: Session, caller: Caller, job_id: JobId) -> EvaluationObject:
    """Return the verdict on the job's final model; NotFound before the job has ended."""
    job = get_owned(session, Job, caller.project, job_id)
    if job.status not in FINAL:
        raise NotFound(
            f"Job {job.id} has not ended. Its evaluation is available once it has succeeded.",
            param="fine_tuning_job_id",
            code="evaluation_not_ready",
        )
    stored = None
    if job.fine_tuned_model is not None:
        stored = verdicts.find_verdict(session, job.project_id, job.fine_tuned_model)
    if stored is None:
        raise NotFound(
            f"Job {job.id} is {job.status} and has no evaluation: it has no final model, or the "
            "model was deleted, or is older than evaluations.",
            param="fine_tuning_job_id",
            code="evaluation_not_found",
        )
    return evaluation_object(stored)


def adapter(
    session: Session,
    caller: Caller,
    job_id: JobId,
    store: BlobStore,
    *,
    step: int | None,
    wanted: str | None,
) -> Response:
    """Return the bundle archive of the final model, or of the checkpoint at `step`."""
    job = get_owned(session, Job, caller.project, job_id)
    model = _final_model(session, job) if step is None else _checkpoint_model(session, job, step)
    name = f"{job.id}-adapter.zip" if step is None else f"{job.id}-step-{step}-adapter.zip"
    return download(
        store, model.bundle_key, filename=name, media_type="application/zip", wanted=wanted
    )


def _final_model(session: Session, job: Job) -> TunedModel:
    if job.fine_tuned_model is not None:
        return get_owned(session, TunedModel, job.project_id, job.fine_tuned_model)
    if job.status in FINAL:
        raise NotFound(
            f"Job {job.id} is {job.status} and has no adapter, but may have checkpoints.",
            param="fine_tuning_job_id",
            code="adapter_not_found",
        )
    raise Conflict(
        f"Job {job.id} has not ended. Its adapter is available once it has succeeded.",
        param="fine_tuning_job_id",
        code="adapter_not_ready",
    )


def _checkpoint_model(session: Session, job: Job, step: int) -> TunedModel:
    checkpoint = models.find_checkpoint(session, job.id, step)
    if checkpoint is None:
        raise NotFound(
            f"Job {job.id} has no checkpoint of step {step}; its checkpoints are listed under "
            "/checkpoints.",
            param="step",
            code="checkpoint_not_found",
        )
    return get_owned(session, TunedModel, job.project_id, checkpoint.model_id)


def _event_cursor(last_event_id: str | None) -> int:
    """Return the event number from which a stream continues, or raise InvalidRequest."""
    if last_event_id is None:
        return 0
    if not _is_event_number(last_event_id):
        raise InvalidRequest(
            "Last-Event-ID must be the `id` of an event of this stream, a number.",
            param="Last-Event-ID",
        )
    return int(last_event_id)
