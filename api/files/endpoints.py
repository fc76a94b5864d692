"""Routes under /v1/files."""

from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.downloads import RangeHeader
from api.files import service
from api.files.schemas import (
    UPLOAD_FORM,
    AdapterFileReport,
    BatchFileReport,
    DeletedFile,
    EvalItemsFileReport,
    FileObject,
    FileReport,
)
from api.files.upload import body_chunks, upload_place
from api.pagination import After, ListOf
from api.repeats import once, with_repeat
from core.records.pages import Order
from core.spec.ids import FileId

router = APIRouter(prefix="/files", tags=["Files"], dependencies=[requires("files")])


@router.post("", openapi_extra=UPLOAD_FORM, response_model=FileObject)
async def create_file(request: Request, state: FromState) -> FileObject | Response:
    """Store an uploaded file, then check every line of it; an adapter, by its content."""
    caller = with_repeat(request)
    content_type = request.headers.get("content-type", "")
    chunks = body_chunks(request)
    async with upload_place(state.uploads):
        # In a separate thread, because slow uploads would exhaust the threads of other handlers.
        receive = partial(
            to_thread.run_sync,
            partial(service.receive, state, caller, content_type, chunks),
            limiter=CapacityLimiter(1),
        )
        return await once(request, caller, receive)


@router.get("")
def list_files(
    state: FromState,
    caller: FromCaller,
    purpose: str | None = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
) -> ListOf[FileObject]:
    with state.database.reading() as session:
        return service.find(session, caller, purpose=purpose, after=after, limit=limit, order=order)


@router.get("/{file_id}")
def retrieve_file(file_id: FileId, state: FromState, caller: FromCaller) -> FileObject:
    with state.database.reading() as session:
        return service.get(session, caller, file_id)


@router.get("/{file_id}/report")
def retrieve_report(
    file_id: FileId, state: FromState, caller: FromCaller
) -> FileReport | BatchFileReport | EvalItemsFileReport | AdapterFileReport:
    with state.database.reading() as session:
        return service.report(session, caller, file_id)


@router.get("/{file_id}/content", response_class=StreamingResponse)
def download_file(
    file_id: FileId, state: FromState, caller: FromCaller, wanted: RangeHeader = None
) -> Response:
    with state.database.reading() as session:
        return service.content(session, caller, file_id, state.store, wanted)


@router.delete("/{file_id}")
def delete_file(file_id: FileId, state: FromState, caller: FromCaller) -> DeletedFile:
    with state.transaction() as transaction:
        return service.delete(transaction, caller, file_id, state.store)
