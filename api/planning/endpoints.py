"""Routes that plan a job before it is created."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.jobs.graders import models_of_graders
from api.json_body import JsonRoute
from api.planning import service
from api.planning.schemas import CreateEstimate, EstimateObject
from api.planning.strategy_schemas import ModelQuery, StrategyList
from core.spec.ids import ModelId, TaskId

router = APIRouter(
    prefix="/fine_tuning",
    tags=["Fine-tuning"],
    route_class=JsonRoute,
    dependencies=[requires("fine_tuning")],
)

SVG = "image/svg+xml"


@router.get("/strategies", response_model=StrategyList)
def compare_strategies(
    model: Annotated[ModelQuery, Query()],
    state: FromState,
    accept: Annotated[str | None, Header()] = None,
) -> StrategyList | Response:
    """All strategies on a base: trained weights, memory, time, quality, and when to use each."""
    with state.database.reading() as session:
        table = service.strategies(session, state, ModelId(model))
    if accept is not None and accept.split(",")[0].split(";")[0].strip() == SVG:
        return Response(service.picture(table), media_type=SVG)
    return table


@router.get("/strategies/picture", response_class=Response, responses={200: {"content": {SVG: {}}}})
def draw_strategies(model: Annotated[ModelQuery, Query()], state: FromState) -> Response:
    """The trained and the frozen weights of each strategy, as a picture (SVG)."""
    with state.database.reading() as session:
        table = service.strategies(session, state, ModelId(model))
    return Response(service.picture(table), media_type=SVG)


@router.post("/estimates")
async def estimate_job(
    body: CreateEstimate, state: FromState, caller: FromCaller
) -> EstimateObject:
    """Accept the body of a job's creation and, instead of training, return what it would need."""
    await models_of_graders(state, caller, body.evaluation.graders, "evaluation.graders")
    return await run_in_threadpool(service.estimate, state, caller, body)


@router.get("/estimates/{estimate_id}")
def retrieve_estimate(estimate_id: TaskId, state: FromState, caller: FromCaller) -> EstimateObject:
    """The figures of a dry run, once its status is no longer `queued`."""
    with state.database.reading() as session:
        return service.get(session, state, caller, estimate_id)
