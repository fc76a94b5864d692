"""Routes under /v1/models. Ids hold slashes and colons, so the last part of a path is the id."""

from fastapi import APIRouter

from api.models import service
from api.models.schemas import DeletedModel, ModelList, ModelObject
from api.parts import FromParts, Project, Reading, Writing

router = APIRouter(prefix="/models", tags=["Models"])


@router.get("")
def list_models(session: Reading, project: Project, parts: FromParts) -> ModelList:
    """The bases of the catalog, then tuned models and their checkpoints, newest first."""
    return service.find(session, parts.catalog, project)


@router.get("/{model:path}")
def retrieve_model(model: str, session: Reading, project: Project, parts: FromParts) -> ModelObject:
    return service.get(session, parts.catalog, project, model)


@router.delete("/{model:path}")
def delete_model(
    model: str, transaction: Writing, project: Project, parts: FromParts
) -> DeletedModel:
    return service.delete(transaction, parts, project, model)
