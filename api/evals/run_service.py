"""The operations of the routes of the runs of evals."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryFile
from typing import Any, assert_never

from pydantic_core import to_json
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.evals.data_sources import (
    DataSource,
    FileContent,
    FileReference,
    StoredCompletions,
    StoredResponses,
)
from api.evals.sampling import models_of, sampling_of
from api.evals.schemas import (
    CreateRun,
    DeletedRun,
    OutputItemObject,
    RunObject,
    item_object,
    run_object,
)
from api.evals.service import GRADERS, require_text
from api.evals.stored import rows_of_completions, rows_of_responses
from api.files.checking import check_items_blob, check_slot
from api.files.schemas import shown_errors
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.errors import InvalidRequest
from core.records import eval_runs
from core.records.eval_runs import NewEvalRun, run_blob_key
from core.records.files import pin_files
from core.records.ids import new_eval_run_id
from core.records.owned import get_owned
from core.records.pages import Order, within_bytes
from core.records.tables import Eval, File
from core.spec.evals import EvalFileReport, EvalRunRequest, ItemStatus, result_names
from core.spec.ids import EvalId, EvalItemId, EvalRunId, FileId
from core.storage.compensation import delete_on_failure
from core.tasks.kinds import Work

CHUNK_BYTES = 1 << 20


async def create(
    state: AppState, caller: Caller, eval_id: EvalId, body: CreateRun, url: str
) -> RunObject:
    """Create a run. Models are resolved and items checked now: it means the same until its end."""
    # Rows are checked with the schema.
    await run_in_threadpool(require_text, body, data_source={"source": {"content"}})
    eval_ = await run_in_threadpool(_eval, state, caller, eval_id)
    criteria = GRADERS.validate_python(eval_.criteria)
    is_stored = isinstance(body.data_source.source, StoredCompletions | StoredResponses)
    sampling = sampling_of(body.data_source, is_stored=is_stored)
    graders = {f"testing_criteria[{number}]": each for number, each in enumerate(criteria)}
    asked = {} if sampling is None else {"data_source.model": sampling.model}
    models = await models_of(state, caller, graders, asked)
    run_id = new_eval_run_id()
    request = EvalRunRequest(
        run_id=run_id,
        blob_key=run_blob_key(run_id),
        criteria=criteria,
        sampling=sampling,
        models=models,
    )
    return await run_in_threadpool(_create, state, caller, eval_, body, request, url)


def _eval(state: AppState, caller: Caller, eval_id: EvalId) -> Eval:
    with state.database.reading() as session:
        return get_owned(session, Eval, caller.project, eval_id)


def _create(
    state: AppState,
    caller: Caller,
    eval_: Eval,
    body: CreateRun,
    request: EvalRunRequest,
    url: str,
) -> RunObject:
    run_id = EvalRunId(request.run_id)
    with _items(state, caller, run_id, eval_, body.data_source) as (file_id, key):
        needs_sample = request.sampling is None
        report = _checked(state, key, eval_, needs_sample=needs_sample)
        request = request.model_copy(update={"blob_key": key})
        data_source = body.data_source.model_dump(mode="json", exclude_none=True)
        new = NewEvalRun(
            project_id=caller.project,
            eval_id=eval_.id,
            id=run_id,
            name=body.name,
            model=_model_id(request),
            user_metadata=body.metadata,
            data_source=data_source,
            file_id=file_id,
            total=report.rows,
            fields=list(report.fields),
        )
        with state.transaction() as transaction:
            session = transaction.session
            if file_id is not None:
                pin_files(session, caller.project, {"data_source.source.id": file_id})
            run, task = eval_runs.create_run(session, new, request)
            transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
            shown = run_object(run, data_source, result_names(request.criteria), url)
            return remember(session, caller, shown)


def _model_id(request: EvalRunRequest) -> str | None:
    """Return the resolved id of the model that answers."""
    return None if request.sampling is None else request.models[request.sampling.model].id


@contextmanager
def _items(
    state: AppState, caller: Caller, run_id: EvalRunId, eval_: Eval, source: DataSource
) -> Iterator[tuple[FileId | None, str]]:
    """Yield the file of the items, if it is one, and their key; no blob remains after an error."""
    if isinstance(source.source, FileReference):
        yield source.source.id, _file_key(state, caller, source.source.id)
        return
    key = run_blob_key(run_id)
    with delete_on_failure(state.store, key), TemporaryFile() as file:
        # Read whole before they are stored, because storing may take longer than a transaction may.
        for row in _rows(state, caller, eval_, source.source):
            file.write(json.dumps(row).encode() + b"\n")
        if file.tell() == 0:
            raise InvalidRequest(
                "No stored request matches the filters of the data source and of the eval.",
                param="data_source.source",
                code="no_items",
            )
        file.seek(0)
        state.store.write(key, iter(lambda: file.read(CHUNK_BYTES), b""))
        yield None, key


def _rows(
    state: AppState,
    caller: Caller,
    eval_: Eval,
    source: FileContent | StoredCompletions | StoredResponses,
) -> Iterator[dict[str, Any]]:
    metadata = eval_.data_source_config.get("metadata") or {}
    match source:
        case FileContent(content=rows):
            yield from (row.model_dump(exclude_none=True) for row in rows)
        case StoredCompletions():
            with state.database.reading() as session:
                yield from rows_of_completions(session, caller, source, metadata)
        case StoredResponses():
            with state.database.reading() as session:
                yield from rows_of_responses(session, caller, source, metadata)
        case _:
            assert_never(source)


def _file_key(state: AppState, caller: Caller, file_id: FileId) -> str:
    param = "data_source.source.id"
    with state.database.reading() as session:
        file = get_owned(session, File, caller.project, file_id, param=param)
    if file.purpose != "evals":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload the items as 'evals'.",
            param=param,
            code="invalid_file_purpose",
        )
    faults = shown_errors(EvalFileReport.model_validate(file.report))
    if faults is not None:
        raise InvalidRequest(
            f"File {file.id} has errors: {faults}", param=param, code="invalid_eval_file"
        )
    return file.blob_key


def _checked(state: AppState, key: str, eval_: Eval, *, needs_sample: bool) -> EvalFileReport:
    """Return the report of the items, checked with the schema of the eval.

    Raises InvalidRequest with the lines that are wrong.
    """
    config = eval_.data_source_config
    is_graded = config["type"] != "custom" or config["include_sample_schema"]
    with check_slot(state.uploads):
        report = check_items_blob(
            state, key, config.get("item_schema"), needs_sample=needs_sample and is_graded
        )
    faults = shown_errors(report)
    if faults is not None:
        raise InvalidRequest(
            f"Some items are invalid for this eval: {faults}",
            param="data_source.source",
            code="invalid_items",
        )
    return report


def find(
    session: Session,
    caller: Caller,
    eval_id: EvalId,
    url: str,
    *,
    status: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> ListOf[RunObject]:
    """Return a page of runs, which ends early if their data sources are large."""
    eval_ = get_owned(session, Eval, caller.project, eval_id)
    names = _names(eval_)
    page = eval_runs.list_runs(
        session, caller.project, eval_id, status=status, after=after, limit=limit, order=order
    )
    # each data source is read from the database here, until the page is full
    shown = within_bytes(page, lambda run: len(to_json(run.data_source)))
    return list_of(shown, lambda run: run_object(run, run.data_source, names, url))


def get(
    session: Session, caller: Caller, eval_id: EvalId, run_id: EvalRunId, url: str
) -> RunObject:
    eval_ = get_owned(session, Eval, caller.project, eval_id)
    run = eval_runs.get_run(session, caller.project, eval_id, run_id)
    return run_object(run, run.data_source, _names(eval_), url)


def cancel(
    transaction: Transaction, caller: Caller, eval_id: EvalId, run_id: EvalRunId, url: str
) -> RunObject:
    eval_ = get_owned(transaction.session, Eval, caller.project, eval_id)
    run = eval_runs.cancel_run(transaction.session, caller.project, eval_id, run_id)
    return run_object(run, run.data_source, _names(eval_), url)


def delete(
    transaction: Transaction,
    caller: Caller,
    eval_id: EvalId,
    run_id: EvalRunId,
    state: AppState,
) -> DeletedRun:
    """Delete a run with its results; one that has not ended stops."""
    key = eval_runs.delete_run(transaction.session, caller.project, eval_id, run_id)
    if key is not None:
        transaction.after_commit(partial(state.store.delete, key))
    return DeletedRun(run_id=run_id)


def find_items(
    session: Session,
    caller: Caller,
    eval_id: EvalId,
    run_id: EvalRunId,
    *,
    status: ItemStatus | None,
    after: str | None,
    limit: int,
    order: Order,
) -> ListOf[OutputItemObject]:
    run = eval_runs.get_run(session, caller.project, eval_id, run_id)
    page = eval_runs.list_items(
        session, caller.project, run_id, status=status, after=after, limit=limit, order=order
    )
    return list_of(page, lambda item: item_object(item, run))


def get_item(
    session: Session, caller: Caller, eval_id: EvalId, run_id: EvalRunId, item_id: EvalItemId
) -> OutputItemObject:
    run = eval_runs.get_run(session, caller.project, eval_id, run_id)
    return item_object(eval_runs.get_item(session, caller.project, run_id, item_id), run)


def _names(eval_: Eval) -> list[str]:
    return result_names(GRADERS.validate_python(eval_.criteria))
