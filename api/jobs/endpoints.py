"""Routes under /v1/fine_tuning/jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.downloads import RangeHeader
from api.jobs import service
from api.jobs.graders import models_of_graders
from api.jobs.schemas import (
    CheckpointObject,
    CreateJob,
    EvaluationObject,
    EventObject,
    JobObject,
)
from api.metadata import metadata_filter
from api.pagination import After, Limit, ListOf
from api.repeats import MakingRoute
from core.spec.ids import JobId

router = APIRouter(
    prefix="/fine_tuning/jobs",
    tags=["Fine-tuning"],
    route_class=MakingRoute,
    dependencies=[requires("fine_tuning")],
)


@router.post("")
async def create_job(body: CreateJob, state: FromState, caller: FromCaller) -> JobObject:
    graders = body.evaluation.graders
    models = await models_of_graders(state, caller, graders, "evaluation.graders")
    return await run_in_threadpool(service.create, state, caller, body, models)


@router.get("")
def list_jobs(
    request: Request, state: FromState, caller: FromCaller, after: After = None, limit: Limit = 20
) -> ListOf[JobObject]:
    """Newest first. `metadata[k]=v` selects jobs with that pair, `metadata=null` those without."""
    wanted = metadata_filter(request.query_params)
    with state.database.reading() as session:
        return service.find(session, caller, after=after, limit=limit, wanted=wanted)


@router.get("/{fine_tuning_job_id}")
def retrieve_job(fine_tuning_job_id: JobId, state: FromState, caller: FromCaller) -> JobObject:
    with state.database.reading() as session:
        return service.get(session, caller, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/cancel")
def cancel_job(fine_tuning_job_id: JobId, state: FromState, caller: FromCaller) -> JobObject:
    with state.transaction() as transaction:
        return service.cancel(transaction, caller, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/pause")
def pause_job(fine_tuning_job_id: JobId, state: FromState, caller: FromCaller) -> JobObject:
    """Pause the job. A run saves its state first; `paused_at` is set when it has stopped."""
    with state.transaction() as transaction:
        return service.pause(transaction, caller, fine_tuning_job_id)


@router.post("/{fine_tuning_job_id}/resume")
def resume_job(fine_tuning_job_id: JobId, state: FromState, caller: FromCaller) -> JobObject:
    """Resume a paused job, or withdraw a pause that has not taken effect."""
    with state.transaction() as transaction:
        return service.resume(transaction, state, caller, fine_tuning_job_id)


@router.get("/{fine_tuning_job_id}/events", response_model=ListOf[EventObject])
def list_events(
    fine_tuning_job_id: JobId,
    state: FromState,
    caller: FromCaller,
    after: After = None,
    limit: Limit = 20,
    stream: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> ListOf[EventObject] | StreamingResponse:
    """A page, newest first; with `stream=true`, server-sent events, oldest first, until the end."""
    if stream:
        return service.event_stream(state, caller, fine_tuning_job_id, last_event_id)
    with state.database.reading() as session:
        return service.list_events(session, caller, fine_tuning_job_id, after=after, limit=limit)


@router.get("/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: JobId,
    state: FromState,
    caller: FromCaller,
    after: After = None,
    limit: Limit = 10,
) -> ListOf[CheckpointObject]:
    with state.database.reading() as session:
        return service.list_checkpoints(
            session, caller, fine_tuning_job_id, after=after, limit=limit
        )


@router.get("/{fine_tuning_job_id}/evaluation")
def retrieve_evaluation(
    fine_tuning_job_id: JobId, state: FromState, caller: FromCaller
) -> EvaluationObject:
    """The verdict on the final model: what it does better or worse than before training."""
    with state.database.reading() as session:
        return service.evaluation(session, caller, fine_tuning_job_id)


@router.get("/{fine_tuning_job_id}/adapter", response_class=StreamingResponse)
def download_adapter(
    fine_tuning_job_id: JobId,
    state: FromState,
    caller: FromCaller,
    step: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    wanted: RangeHeader = None,
) -> Response:
    """The archive of the adapter in PEFT's layout; with `step`, that of a checkpoint."""
    with state.database.reading() as session:
        return service.adapter(
            session, caller, fine_tuning_job_id, state.store, step=step, wanted=wanted
        )
