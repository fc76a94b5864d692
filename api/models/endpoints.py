"""Routes under /v1/models. Ids contain slashes and colons, so they are the last part of a path."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.json_body import JsonRoute
from api.models import service
from api.models.schemas import DeletedModel, ModelList, ModelObject, ServingBody
from core.spec.ids import ModelId

router = APIRouter(
    prefix="/models",
    tags=["Models"],
    route_class=JsonRoute,
    dependencies=[requires("models")],
)


@router.get("")
def list_models(state: FromState, caller: FromCaller) -> ModelList:
    """The bases of the catalog, then tuned models and their checkpoints, newest first."""
    with state.database.reading() as session:
        return service.find(session, state.catalog, caller)


@router.post("/{model:path}/serving")
def serve_model(
    model: ModelId, body: ServingBody, state: FromState, caller: FromCaller
) -> ModelObject:
    """Serve a tuned model as an adapter on its base, or merged."""
    with state.transaction() as transaction:
        return service.serve(transaction, caller, model, body)


@router.post("/{model:path}/publish")
def publish_model(model: ModelId, state: FromState, caller: FromCaller) -> ModelObject:
    """Enable a model that is not served as it was trained; no effect on other models."""
    with state.transaction() as transaction:
        return service.publish(transaction, caller, model)


@router.get("/{model:path}")
def retrieve_model(model: ModelId, state: FromState, caller: FromCaller) -> ModelObject:
    with state.database.reading() as session:
        return service.get(session, state.catalog, caller, model)


@router.delete("/{model:path}")
def delete_model(model: ModelId, state: FromState, caller: FromCaller) -> DeletedModel:
    with state.transaction() as transaction:
        return service.delete(transaction, state, caller, model)
