"""Routes under /v1/files."""

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from api.files import service
from api.files.schemas import UPLOAD_FORM, DeletedFile, FileObject, FileReport
from api.files.upload import body_chunks, upload_place
from api.pagination import After, ListOf
from api.parts import FromParts, Project
from core.records.pages import Order

router = APIRouter(prefix="/files", tags=["Files"])


@router.post("", openapi_extra=UPLOAD_FORM)
async def create_file(request: Request, parts: FromParts, project: Project) -> FileObject:
    """Store a file while it arrives, then check every line of it."""
    content_type = request.headers.get("content-type", "")
    chunks = body_chunks(request)
    with upload_place(parts.uploads):
        # In an extra thread, because slow uploads would exhaust the threads of other handlers.
        return await to_thread.run_sync(
            service.receive, parts, project, content_type, chunks, limiter=CapacityLimiter(1)
        )


@router.get("")
def list_files(
    parts: FromParts,
    project: Project,
    purpose: str | None = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
) -> ListOf[FileObject]:
    with parts.database.reading() as session:
        return service.find(
            session, project, purpose=purpose, after=after, limit=limit, order=order
        )


@router.get("/{file_id}")
def retrieve_file(file_id: str, parts: FromParts, project: Project) -> FileObject:
    with parts.database.reading() as session:
        return service.get(session, project, file_id)


@router.get("/{file_id}/report")
def retrieve_report(file_id: str, parts: FromParts, project: Project) -> FileReport:
    with parts.database.reading() as session:
        return service.report(session, project, file_id)


@router.get("/{file_id}/content", response_class=StreamingResponse)
def download_file(file_id: str, parts: FromParts, project: Project) -> StreamingResponse:
    with parts.database.reading() as session:
        return service.content(session, project, file_id, parts.store)


@router.delete("/{file_id}")
def delete_file(file_id: str, parts: FromParts, project: Project) -> DeletedFile:
    with parts.transaction() as transaction:
        return service.delete(transaction, project, file_id, parts.store)
