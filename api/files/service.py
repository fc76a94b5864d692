"""The operations of the file routes."""

from collections.abc import Iterator
from functools import partial

from sqlalchemy.orm import Session
from starlette.responses import Response

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.downloads import download
from api.files.checking import (
    check_adapter_blob,
    check_blob,
    check_items_blob,
    check_requests_blob,
)
from api.files.schemas import (
    AdapterFileReport,
    BatchFileReport,
    DeletedFile,
    EvalItemsFileReport,
    FileObject,
    FileReport,
    Report,
    file_object,
)
from api.files.upload import Upload, store_upload
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.errors import NotFound
from core.records import files
from core.records.owned import get_owned
from core.records.pages import Order
from core.records.tables import File
from core.spec.ids import FileId
from core.storage.blobs import BlobStore
from core.storage.compensation import delete_on_failure


def receive(
    state: AppState, caller: Caller, content_type: str, chunks: Iterator[bytes]
) -> FileObject:
    """Store, check and record an upload; nothing remains of it after an error.

    The transaction begins only at the end, because an upload may take an hour.
    """
    file_id, key = files.new_file_key()
    with delete_on_failure(state.store, key):
        upload = store_upload(
            state.store, key, content_type, chunks, max_bytes=state.settings.max_file_bytes
        )
        report = _checked(state, key, upload)
        with state.database.writing() as session:
            file = files.add_file(
                session,
                file_id=file_id,
                project_id=caller.project,
                filename=upload.filename,
                purpose=upload.purpose,
                bytes=upload.blob.bytes,
                sha256=upload.blob.sha256,
                blob_key=key,
                report=report,
                lifetime_seconds=upload.lifetime_seconds,
            )
            session.flush()
            return remember(session, caller, file_object(file), upload.content)


def _checked(state: AppState, key: str, upload: Upload) -> Report:
    match upload.purpose:
        case "fine-tune":
            return check_blob(state, key, upload.columns)
        case "batch":
            return check_requests_blob(state, key)
        case "evals":
            return check_items_blob(state, key)
        case "adapter":
            return check_adapter_blob(state, key, upload.filename)


def find(
    session: Session,
    caller: Caller,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> ListOf[FileObject]:
    page = files.list_files(
        session, caller.project, purpose=purpose, after=after, limit=limit, order=order
    )
    return list_of(page, file_object)


def get(session: Session, caller: Caller, file_id: FileId) -> FileObject:
    return file_object(get_owned(session, File, caller.project, file_id))


def report(
    session: Session, caller: Caller, file_id: FileId
) -> FileReport | BatchFileReport | EvalItemsFileReport | AdapterFileReport:
    file = get_owned(session, File, caller.project, file_id)
    if file.report is None:
        raise NotFound(
            f"File {file_id} is a result and has no report. Only uploaded files are checked.",
            param="file_id",
            code="report_not_found",
        )
    kinds: dict[str, type[BatchFileReport | EvalItemsFileReport | AdapterFileReport]] = {
        "batch": BatchFileReport,
        "evals": EvalItemsFileReport,
        "adapter": AdapterFileReport,
    }
    kind = kinds.get(file.purpose, FileReport)
    return kind.model_validate({**file.report, "file_id": file.id})


def content(
    session: Session, caller: Caller, file_id: FileId, store: BlobStore, wanted: str | None
) -> Response:
    file = get_owned(session, File, caller.project, file_id)
    return download(store, file.blob_key, filename=file.filename, wanted=wanted)


def delete(
    transaction: Transaction, caller: Caller, file_id: FileId, store: BlobStore
) -> DeletedFile:
    file = files.delete_file(transaction.session, caller.project, file_id)
    transaction.after_commit(partial(store.delete, file.blob_key))
    return DeletedFile(id=file.id)
