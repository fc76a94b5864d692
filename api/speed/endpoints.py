"""The speed test. Its path is longer than that of a model, so it is to be looked at first."""

from fastapi import APIRouter, Request

from api.generation.run import unless_client_leaves
from api.parts import FromParts, Project
from api.speed import service
from api.speed.schemas import SpeedObject

router = APIRouter(prefix="/models", tags=["Models"])


@router.get("/{model:path}/speed")
async def model_speed(
    model: str, request: Request, parts: FromParts, project: Project, refresh: bool = False
) -> SpeedObject:
    """The stored result for the form that is served now; measured first if there is none."""
    work = service.speed_of(parts, project, model, refresh=refresh)
    return await unless_client_leaves(request, work)
