"""The operations of the batch routes."""

from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.batches.schemas import BatchObject, CreateBatch, batch_object, window_seconds
from api.models.resolve import Models, resolved_models
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.errors import InvalidRequest
from core.records import batches
from core.records.batches import NewBatch
from core.records.files import pin_files
from core.records.owned import get_owned
from core.records.tables import Batch, File
from core.spec.batch import BatchModel, BatchReport
from core.spec.ids import BatchId
from core.tasks.kinds import Work

CODES = {
    None: "invalid_json_line",
    "custom_id": "invalid_custom_id",
    "method": "invalid_method",
    "url": "invalid_url",
    "body": "invalid_body",
    "body.model": "too_many_models",
}
"""The code of an error of an input file, by its field; an unknown key has another."""


async def create(state: AppState, caller: Caller, body: CreateBatch) -> BatchObject:
    """Create a batch. An invalid input file gives a batch that has failed.

    Names of models are resolved now, so a batch means the same until its end.
    """
    report = await run_in_threadpool(_report, state, caller, body)
    errors = _errors(report, body)
    models = {} if errors else await resolved_models(state, caller, report.models)
    return await run_in_threadpool(_create, state, caller, body, report, models, errors)


def _report(state: AppState, caller: Caller, body: CreateBatch) -> BatchReport:
    with state.database.reading() as session:
        file = get_owned(session, File, caller.project, body.input_file_id, param="input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload the requests as 'batch'.",
            param="input_file_id",
            code="invalid_file_purpose",
        )
    return BatchReport.model_validate(file.report)


def _errors(report: BatchReport, body: CreateBatch) -> list[dict[str, Any]]:
    """Return the errors of the input file, and of lines for another endpoint."""
    errors = [
        _error(CODES.get(fault.field, "unknown_parameter"), fault.message, fault.field, fault.line)
        for fault in report.faults
    ]
    others = ((url, line) for url, line in report.urls.items() if url != body.endpoint)
    for url, line in others:
        message = f"the url {url} is not the endpoint of the batch, {body.endpoint}"
        errors.append(_error("mismatched_url", message, "url", line))
    if report.rows == 0 and not errors:
        errors.append(_error("empty_file", "the file has no requests", None, None))
    return errors


def _error(code: str, message: str, param: str | None, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def _create(
    state: AppState,
    caller: Caller,
    body: CreateBatch,
    report: BatchReport,
    models: Models,
    errors: list[dict[str, Any]],
) -> BatchObject:
    ids = {model.id for model in models.values() if isinstance(model, BatchModel)}
    expiry = body.output_expires_after
    new = NewBatch(
        project_id=caller.project,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        window_seconds=window_seconds(body.completion_window),
        total=report.rows,
        model=ids.pop() if len(ids) == len(models) == 1 else None,
        user_metadata=body.metadata,
        output_expires_seconds=None if expiry is None else expiry.seconds,
    )
    with state.transaction() as transaction:
        session = transaction.session
        if errors:
            failed = batch_object(batches.create_failed_batch(session, new, errors))
            return remember(session, caller, failed)
        pin_files(session, caller.project, {"input_file_id": body.input_file_id})
        file = get_owned(session, File, caller.project, body.input_file_id)
        batch, task = batches.create_batch(session, new, file.blob_key, models)
        transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
        return remember(session, caller, batch_object(batch))


def find(session: Session, caller: Caller, *, after: str | None, limit: int) -> ListOf[BatchObject]:
    page = batches.list_batches(session, caller.project, after=after, limit=limit)
    return list_of(page, batch_object)


def get(session: Session, caller: Caller, batch_id: BatchId) -> BatchObject:
    return batch_object(get_owned(session, Batch, caller.project, batch_id))


def cancel(transaction: Transaction, caller: Caller, batch_id: BatchId) -> BatchObject:
    return batch_object(batches.cancel_batch(transaction.session, caller.project, batch_id))
