"""POST /v1/classifications, in Mistral's format."""

from fastapi import APIRouter, Request

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.classifications.schemas import ClassificationBody, Classifications
from api.classifications.service import classify
from api.generation.run import unless_client_leaves
from api.json_body import PromptRoute

router = APIRouter(route_class=PromptRoute, dependencies=[requires("inference")])


@router.post("/classifications", tags=["Classifications"])
async def create_classifications(
    body: ClassificationBody, request: Request, state: FromState, caller: FromCaller
) -> Classifications:
    return await unless_client_leaves(request, classify(state, caller, body))
