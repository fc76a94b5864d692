"""Routes under /v1/models. Ids hold slashes and colons, so the last part of a path is the id."""

from fastapi import APIRouter

from api.models import service
from api.models.schemas import DeletedModel, ModelList, ModelObject, ServingBody
from api.parts import FromParts, Project

router = APIRouter(prefix="/models", tags=["Models"])


@router.get("")
def list_models(parts: FromParts, project: Project) -> ModelList:
    """The bases of the catalog, then tuned models and their checkpoints, newest first."""
    with parts.database.reading() as session:
        return service.find(session, parts.catalog, project)


@router.post("/{model:path}/serving")
def serve_model(model: str, body: ServingBody, parts: FromParts, project: Project) -> ModelObject:
    """Serve a tuned model on its base, or merged into weights of its own."""
    with parts.transaction() as transaction:
        return service.serve(transaction, project, model, body)


@router.post("/{model:path}/publish")
def publish_model(model: str, parts: FromParts, project: Project) -> ModelObject:
    """Have a model answer that is not served as it was trained; any other stays as it is."""
    with parts.transaction() as transaction:
        return service.publish(transaction, project, model)


@router.get("/{model:path}")
def retrieve_model(model: str, parts: FromParts, project: Project) -> ModelObject:
    with parts.database.reading() as session:
        return service.get(session, parts.catalog, project, model)


@router.delete("/{model:path}")
def delete_model(model: str, parts: FromParts, project: Project) -> DeletedModel:
    with parts.transaction() as transaction:
        return service.delete(transaction, parts, project, model)
