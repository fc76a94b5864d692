"""The operations of the file routes."""

from collections.abc import Iterator
from functools import partial

from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from api.downloads import download
from api.files.checking import check_blob
from api.files.schemas import DeletedFile, FileObject, FileReport, file_object
from api.files.upload import store_upload
from api.pagination import ListOf, list_of
from api.parts import Parts, Transaction
from core.errors import NotFound
from core.records import files
from core.records.pages import Order
from core.storage.blobs import BlobStore


def receive(parts: Parts, project: str, content_type: str, chunks: Iterator[bytes]) -> FileObject:
    """Store, check and record an upload; nothing remains of it after an error.

    The transaction begins only at the end, because an upload may take an hour.
    """
    file_id, key = files.new_file_key()
    upload = store_upload(
        parts.store, key, content_type, chunks, max_bytes=parts.settings.max_file_bytes
    )
    try:
        report = check_blob(parts, key, upload.columns)
        with parts.database.writing() as session:
            file = files.add_file(
                session,
                file_id=file_id,
                project_id=project,
                filename=upload.filename,
                purpose="fine-tune",
                bytes=upload.blob.bytes,
                sha256=upload.blob.sha256,
                blob_key=key,
                report=report,
            )
    except BaseException:
        parts.store.delete(key)
        raise
    return file_object(file)


def find(
    session: Session,
    project: str,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> ListOf[FileObject]:
    page = files.list_files(
        session, project, purpose=purpose, after=after, limit=limit, order=order
    )
    data = [file_object(file) for file in page.rows]
    return list_of(data, [file.id for file in data], has_more=page.has_more)


def get(session: Session, project: str, file_id: str) -> FileObject:
    return file_object(files.get_file(session, project, file_id))


def report(session: Session, project: str, file_id: str) -> FileReport:
    file = files.get_file(session, project, file_id)
    if file.report is None:
        raise NotFound(
            f"File {file_id} is a job result and has no report. Only uploaded datasets are "
            "checked.",
            param="file_id",
            code="report_not_found",
        )
    return FileReport.model_validate({**file.report, "file_id": file.id})


def content(session: Session, project: str, file_id: str, store: BlobStore) -> StreamingResponse:
    file = files.get_file(session, project, file_id)
    return download(store, file.blob_key, filename=file.filename)


def delete(transaction: Transaction, project: str, file_id: str, store: BlobStore) -> DeletedFile:
    file = files.delete_file(transaction.session, project, file_id)
    transaction.after_commit(partial(store.delete, file.blob_key))
    return DeletedFile(id=file.id)
