"""Routes under /v1/models. Ids contain slashes and colons, so they are the last part of a path."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.json_body import JsonRoute
from api.models import bases, service
from api.models.schemas import (
    DeletedModel,
    DownloadObject,
    ModelList,
    ModelObject,
    ServingBody,
)
from api.models.service import WantedState
from core.spec.ids import ModelId

router = APIRouter(
    prefix="/models",
    tags=["Models"],
    route_class=JsonRoute,
    dependencies=[requires("models")],
)


@router.get("")
def list_models(caller: FromCaller, app: FromState, state: WantedState = "present") -> ModelList:
    """What can answer: the bases with files, then tuned models and checkpoints, newest first.

    With `state`, the bases in another state, or `all` models.
    """
    with app.database.reading() as session:
        return service.find(session, app, caller, state)


@router.post("/{model:path}/download")
def download_base(model: ModelId, state: FromState, caller: FromCaller) -> DownloadObject:
    """Download a base from the Hugging Face hub; no effect if it is present or on its way."""
    with state.transaction() as transaction:
        return bases.download(transaction, state, caller, model)


@router.get("/{model:path}/download")
def retrieve_download(model: ModelId, state: FromState) -> DownloadObject:
    """The progress of the newest download of a base."""
    with state.database.reading() as session:
        return bases.get_download(session, state, model)


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
        return service.get(session, state, caller, model)


@router.delete("/{model:path}")
def delete_model(model: ModelId, state: FromState, caller: FromCaller) -> DeletedModel:
    with state.transaction() as transaction:
        return service.delete(transaction, state, caller, model)
