"""Routes under /v1/fine_tuning/jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from api.jobs import service
from api.jobs.datasets import recheck
from api.jobs.event_stream import event_response, stream_events
from api.jobs.schemas import CheckpointObject, CreateJob, EventObject, JobObject
from api.json_body import JsonRoute
from api.pagination import After, Limit, ListOf
from api.parts import FromParts, Project

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"], route_class=JsonRoute)


@router.post("")
def create_job(body: CreateJob, parts: FromParts, project: Project) -> JobObject:
    rechecked = recheck(parts, project, body)
    with parts.transaction() as transaction:
        return service.create(transaction, parts, project, body, rechecked)


@router.get("")
def list_jobs(
    request: Request, parts: FromParts, project: Project, after: After = None, limit: Limit = 20
) -> ListOf[JobObject]:
    """Newest first. `metadata[k]=v` keeps jobs with that pair, `metadata=null` those with none."""
    wanted = service.metadata_filter(request.query_params)
    with parts.database.reading() as session:
        return service.find(session, project, after=after, limit=limit, wanted=wanted)


@router.get("/{fine_tuning_job_id}")
def retrieve_job(fine_tuning_job_id: str, parts: FromParts, project: Project) -> JobObject:
    with parts.database.reading() as session:
        return service.get(session, project, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_job(fine_tuning_job_id: str, parts: FromParts, project: Project) -> JobObject:
    with parts.transaction() as transaction:
        return service.cancel(transaction, project, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/pause")
def pause_job(fine_tuning_job_id: str, parts: FromParts, project: Project) -> JobObject:
    """Park the job. A run saves its state first; `paused_at` is set once it has stopped."""
    with parts.transaction() as transaction:
        return service.pause(transaction, project, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/resume")
def resume_job(fine_tuning_job_id: str, parts: FromParts, project: Project) -> JobObject:
    """Let a paused job go on where it stopped, or withdraw a pause that has not begun."""
    with parts.transaction() as transaction:
        return service.resume(transaction, parts, project, fine_tuning_job_id)


@router.get("/{fine_tuning_job_id}/events", response_model=ListOf[EventObject])
def list_events(
    fine_tuning_job_id: str,
    parts: FromParts,
    project: Project,
    after: After = None,
    limit: Limit = 20,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListOf[EventObject] | StreamingResponse:
    """A page, newest first; with `stream=true` server-sent events, oldest first, until the end."""
    with parts.database.reading() as session:
        job = service.get(session, project, fine_tuning_job_id)
        if not stream:
            return service.list_events(session, project, job.id, after=after, limit=limit)
    cursor = service.event_cursor(last_event_id)
    return event_response(stream_events(parts.database, project, job.id, cursor))


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: str,
    parts: FromParts,
    project: Project,
    after: After = None,
    limit: Limit = 10,
) -> ListOf[CheckpointObject]:
    with parts.database.reading() as session:
        return service.list_checkpoints(
            session, project, fine_tuning_job_id, after=after, limit=limit
        )


@router.get("/{fine_tuning_job_id}/adapter", response_class=StreamingResponse)
def download_adapter(
    fine_tuning_job_id: str,
    parts: FromParts,
    project: Project,
    step: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> StreamingResponse:
    """The archive of the adapter in PEFT's layout; with `step`, that of a checkpoint."""
    with parts.database.reading() as session:
        return service.adapter(session, project, fine_tuning_job_id, parts.store, step=step)
