"""The route of the speed test, which must be matched before the shorter path of a model."""

from fastapi import APIRouter, Request

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.generation.run import unless_client_leaves
from api.speed import service
from api.speed.schemas import SpeedObject
from core.spec.ids import ModelId

router = APIRouter(
    prefix="/models",
    tags=["Models"],
    # a test generates on an engine, like the routes of inference
    dependencies=[requires("models", "inference")],
)


@router.get("/{model:path}/speed")
async def model_speed(
    model: ModelId, request: Request, state: FromState, caller: FromCaller, refresh: bool = False
) -> SpeedObject:
    """The stored result for the current serving form; measured first if there is none."""
    work = service.speed_of(state, caller, model, refresh=refresh)
    return await unless_client_leaves(request, work)
