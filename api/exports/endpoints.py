"""Routes of exports. That of a model must be matched before the shorter path of a model."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.downloads import RangeHeader
from api.exports import service
from api.exports.schemas import CreateExport, DeletedExport, ExportObject
from api.pagination import After, Limit, ListOf
from api.repeats import MakingRoute
from core.spec.ids import ModelId, TaskId

router = APIRouter(tags=["Models"], route_class=MakingRoute, dependencies=[requires("models")])


@router.post("/models/{model:path}/exports")
def create_export(
    model: ModelId, body: CreateExport, state: FromState, caller: FromCaller
) -> ExportObject:
    """Write a tuned model in another format. An equal request that has not ended is returned."""
    with state.transaction() as transaction:
        return service.create(transaction, state, caller, model, body)


@router.get("/models/{model:path}/exports")
def list_exports(
    model: ModelId, state: FromState, caller: FromCaller, after: After = None, limit: Limit = 20
) -> ListOf[ExportObject]:
    """The exports of a tuned model, newest first."""
    with state.database.reading() as session:
        return service.find(session, caller, model, after=after, limit=limit)


@router.get("/exports/{export_id}")
def retrieve_export(export_id: TaskId, state: FromState, caller: FromCaller) -> ExportObject:
    with state.database.reading() as session:
        return service.get(session, caller, export_id)


@router.get("/exports/{export_id}/content", response_class=StreamingResponse)
def download_export(
    export_id: TaskId,
    state: FromState,
    caller: FromCaller,
    path: Annotated[str | None, Query(description="one file; by default the archive")] = None,
    wanted: RangeHeader = None,
) -> Response:
    """The archive of the export, or one of its files."""
    with state.database.reading() as session:
        return service.content(session, state, caller, export_id, path, wanted)


@router.delete("/exports/{export_id}")
def delete_export(export_id: TaskId, state: FromState, caller: FromCaller) -> DeletedExport:
    """Delete the export with its files; a running one stops."""
    with state.transaction() as transaction:
        return service.delete(transaction, state, caller, export_id)
