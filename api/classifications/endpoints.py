"""POST /v1/classifications, in Mistral's format."""

from fastapi import APIRouter, Request

from api.classifications.schemas import ClassificationBody, Classifications
from api.classifications.service import classify
from api.generation.run import unless_client_leaves
from api.json_body import PromptRoute
from api.parts import FromParts, Project

router = APIRouter(route_class=PromptRoute)


@router.post("/classifications", tags=["Classifications"])
async def create_classifications(
    body: ClassificationBody, request: Request, parts: FromParts, project: Project
) -> Classifications:
    return await unless_client_leaves(request, classify(parts, project, body))
