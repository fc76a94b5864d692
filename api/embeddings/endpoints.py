"""POST /v1/embeddings."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.embeddings.service import embed
from api.generation.run import unless_client_leaves
from api.json_body import PromptRoute
from core.inference.embeddings import EmbeddingBody

router = APIRouter(route_class=PromptRoute, dependencies=[requires("inference")])


@router.post("/embeddings", tags=["Embeddings"], response_class=JSONResponse)
async def create_embeddings(
    body: EmbeddingBody, request: Request, state: FromState, caller: FromCaller
) -> Response:
    content = await unless_client_leaves(request, embed(state, caller, body))
    return Response(content, media_type="application/json")
