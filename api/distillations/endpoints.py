"""Routes under /v1/fine_tuning/distillations."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.distillations import service
from api.distillations.report import ReportFormat, candidates
from api.distillations.schemas import (
    CreateDistillation,
    DeletedDistillation,
    DistillationObject,
)
from api.evals.endpoints import ItemsRoute
from api.pagination import After, Limit, ListOf
from core.spec.ids import DistillationId

router = APIRouter(
    prefix="/fine_tuning/distillations",
    tags=["Fine-tuning"],
    route_class=ItemsRoute,
    # it reads and writes files, and the teacher answers on an engine
    dependencies=[requires("fine_tuning", "files", "inference")],
)


@router.post("")
async def create_distillation(
    body: CreateDistillation, state: FromState, caller: FromCaller
) -> DistillationObject:
    """Let a teacher answer prompts, filter the answers, and train a student on them."""
    return await service.create(state, caller, body)


@router.get("")
def list_distillations(
    state: FromState, caller: FromCaller, after: After = None, limit: Limit = 20
) -> ListOf[DistillationObject]:
    """Newest first."""
    with state.database.reading() as session:
        return service.find(session, caller, after=after, limit=limit)


@router.get("/{distillation_id}")
def retrieve_distillation(
    distillation_id: DistillationId, state: FromState, caller: FromCaller
) -> DistillationObject:
    with state.database.reading() as session:
        return service.get(session, caller, distillation_id)


@router.get("/{distillation_id}/candidates", response_class=StreamingResponse)
def retrieve_candidates(
    distillation_id: DistillationId,
    state: FromState,
    caller: FromCaller,
    format: Annotated[ReportFormat, Query()] = "jsonl",
) -> StreamingResponse:
    """All answers so far, kept and dropped and failed ones, with scores and reasons."""
    return candidates(state, caller, distillation_id, format)


@router.post("/{distillation_id}/cancel")
def cancel_distillation(
    distillation_id: DistillationId, state: FromState, caller: FromCaller
) -> DistillationObject:
    """Cancel the distillation, or its job. The answers so far are kept."""
    with state.transaction() as transaction:
        return service.cancel(transaction, caller, distillation_id, state)


@router.delete("/{distillation_id}")
def delete_distillation(
    distillation_id: DistillationId, state: FromState, caller: FromCaller
) -> DeletedDistillation:
    """Delete the distillation with its answers. The training file and the job are kept."""
    with state.transaction() as transaction:
        return service.delete(transaction, caller, distillation_id, state)
