"""POST /v1/fine_tuning/alpha/graders/run and /validate."""

from fastapi import APIRouter, Request

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.generation.run import unless_client_leaves
from api.graders import service
from api.graders.schemas import GraderRun, RunGrader, ValidateGrader, ValidGrader
from api.json_body import PromptRoute

router = APIRouter(
    prefix="/fine_tuning/alpha/graders",
    route_class=PromptRoute,
    dependencies=[requires("fine_tuning")],
    tags=["Graders"],
)


@router.post("/run")
async def run_grader(
    body: RunGrader, request: Request, state: FromState, caller: FromCaller
) -> GraderRun:
    return await unless_client_leaves(request, service.run(state, caller, body))


@router.post("/validate")
async def validate_grader(
    body: ValidateGrader, request: Request, state: FromState, caller: FromCaller
) -> ValidGrader:
    return await unless_client_leaves(request, service.validate(state, caller, body))
