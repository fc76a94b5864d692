"""Routes under /v1/fine_tuning/jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from api.jobs import service
from api.jobs.event_stream import stream_events
from api.jobs.schemas import CheckpointObject, CreateJob, EventObject, JobObject
from api.pagination import After, Limit, ListOf
from api.parts import FromParts, Project, Reading, Writing

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])


@router.post("")
def create_job(
    body: CreateJob, transaction: Writing, parts: FromParts, project: Project
) -> JobObject:
    return service.create(transaction, parts, project, body)


@router.get("")
def list_jobs(
    request: Request, session: Reading, project: Project, after: After = None, limit: Limit = 20
) -> ListOf[JobObject]:
    """Newest first. `metadata[k]=v` keeps jobs with that pair, `metadata=null` those with none."""
    pairs = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    without = request.query_params.get("metadata") == "null"
    return service.find(
        session, project, after=after, limit=limit, metadata=pairs, without_metadata=without
    )


@router.get("/{fine_tuning_job_id}")
def retrieve_job(fine_tuning_job_id: str, session: Reading, project: Project) -> JobObject:
    return service.get(session, project, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_job(fine_tuning_job_id: str, transaction: Writing, project: Project) -> JobObject:
    return service.cancel(transaction, project, fine_tuning_job_id)


@router.get("/{fine_tuning_job_id}/events", response_model=ListOf[EventObject])
def list_events(
    fine_tuning_job_id: str,
    session: Reading,
    project: Project,
    parts: FromParts,
    after: After = None,
    limit: Limit = 20,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListOf[EventObject] | StreamingResponse:
    """A page, newest first; with `stream=true` server-sent events, oldest first, until the end."""
    if not stream:
        return service.list_events(session, project, fine_tuning_job_id, after=after, limit=limit)
    job = service.get(session, project, fine_tuning_job_id)
    events = stream_events(parts.database, project, job.id, service.event_cursor(last_event_id))
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: str,
    session: Reading,
    project: Project,
    after: After = None,
    limit: Limit = 10,
) -> ListOf[CheckpointObject]:
    return service.list_checkpoints(session, project, fine_tuning_job_id, after=after, limit=limit)


@router.get("/{fine_tuning_job_id}/adapter", response_class=StreamingResponse)
def download_adapter(
    fine_tuning_job_id: str,
    session: Reading,
    project: Project,
    parts: FromParts,
    step: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> StreamingResponse:
    """The archive of the adapter in PEFT's layout; with `step`, that of a checkpoint."""
    return service.adapter(session, project, fine_tuning_job_id, parts.store, step=step)
