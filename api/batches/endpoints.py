"""Routes under /v1/batches."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.batches import service
from api.batches.schemas import BatchObject, CreateBatch
from api.pagination import After, Limit, ListOf
from api.repeats import MakingRoute
from core.spec.ids import BatchId

router = APIRouter(
    prefix="/batches",
    tags=["Batch"],
    route_class=MakingRoute,
    # a batch reads and writes files, and generates on engines
    dependencies=[requires("files", "inference")],
)


@router.post("")
async def create_batch(body: CreateBatch, state: FromState, caller: FromCaller) -> BatchObject:
    """Answer the requests of a file in the background. A faulty file gives a failed batch."""
    return await service.create(state, caller, body)


@router.get("")
def list_batches(
    state: FromState, caller: FromCaller, after: After = None, limit: Limit = 20
) -> ListOf[BatchObject]:
    """Newest first."""
    with state.database.reading() as session:
        return service.find(session, caller, after=after, limit=limit)


@router.get("/{batch_id}")
def retrieve_batch(batch_id: BatchId, state: FromState, caller: FromCaller) -> BatchObject:
    with state.database.reading() as session:
        return service.get(session, caller, batch_id)


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: BatchId, state: FromState, caller: FromCaller) -> BatchObject:
    """Stop a batch; what has been answered is kept."""
    with state.transaction() as transaction:
        return service.cancel(transaction, caller, batch_id)
