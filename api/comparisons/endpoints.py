"""Routes under /v1/fine_tuning/comparisons."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.comparisons import service
from api.comparisons.schemas import ComparisonObject, CreateComparison
from api.repeats import MakingRoute
from core.spec.ids import TaskId

router = APIRouter(
    prefix="/fine_tuning/comparisons",
    tags=["Fine-tuning"],
    route_class=MakingRoute,
    # the models answer on an engine, like the routes of inference
    dependencies=[requires("fine_tuning", "inference")],
)


@router.post("")
async def create_comparison(
    body: CreateComparison, state: FromState, caller: FromCaller
) -> ComparisonObject:
    """Let several models answer the rows of a file, and score the answers."""
    return await service.create(state, caller, body)


@router.get("/{comparison_id}")
def retrieve_comparison(
    comparison_id: TaskId, state: FromState, caller: FromCaller
) -> ComparisonObject:
    """The answers so far; at the end also the scores of all models, and their differences."""
    with state.database.reading() as session:
        return service.get(session, caller, comparison_id)
