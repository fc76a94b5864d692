"""The operations of the routes for models without a job."""

import math
from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.files.schemas import shown_errors
from api.made_models.schemas import (
    CreateImport,
    CreateSoup,
    ImportObject,
    SoupObject,
    import_object,
    soup_object,
)
from api.models.bases import require_files
from api.models.resolve import resolved_models
from api.repeats import remember
from core.errors import InvalidRequest
from core.inference.error_bodies import error_of
from core.inference.targets import require_base
from core.records.files import pin_files
from core.records.made_models import IMPORT, SOUP, get_making, request_import, request_soup
from core.records.models import pin_model
from core.records.owned import get_owned
from core.records.tables import File, Task
from core.spec.adapter_file import AdapterReport
from core.spec.batch import BatchModel, RefusedModel
from core.spec.ids import FileId, ModelId, TaskId
from core.spec.made_model import ImportRequest, SoupRequest, SourceFile
from core.spec.making import LabelSpec
from core.tasks.kinds import Work


def create_import(
    transaction: Transaction, state: AppState, caller: Caller, body: CreateImport
) -> ImportObject:
    """Check the base and the reports of the files, and let a worker import the adapter."""
    session = transaction.session
    base = require_base(state.catalog, body.model, "what adapters are imported for")
    require_files(session, state, base)
    given = _given_files(body)
    pin_files(session, caller.project, given)
    request = ImportRequest(
        requested_model=body.model,
        base=base,
        files=tuple(
            _source(session, caller, *each, alone=len(given) == 1) for each in given.items()
        ),
        labels=LabelSpec(names=tuple(body.labels), multi_label=body.multi_label),
        suffix=body.suffix,
    )
    task = request_import(session, caller.project, request)
    return remember(session, caller, import_object(_woken(transaction, state, task)))


def get_import(session: Session, caller: Caller, import_id: TaskId) -> ImportObject:
    return import_object(get_making(session, caller.project, IMPORT, import_id))


async def create_soup(state: AppState, caller: Caller, body: CreateSoup) -> SoupObject:
    """Check the models and weights, and let a worker add the adapters."""
    weights = _weights(body)
    found = await resolved_models(state, caller, body.models)
    models = [_ingredient(found[name], name, number) for number, name in enumerate(body.models)]
    _require_one_base(models)
    return await run_in_threadpool(_create_soup, state, caller, body, models, weights)


def get_soup(session: Session, caller: Caller, soup_id: TaskId) -> SoupObject:
    return soup_object(get_making(session, caller.project, SOUP, soup_id))


def _given_files(body: CreateImport) -> dict[str, FileId]:
    """Return the files by the field of the request that names each."""
    if (body.file is None) == (not body.files):
        raise InvalidRequest(
            "Send either `file`, an archive, or `files`, the files of the adapter's folder.",
            param="file",
            code="contradictory_parameters" if body.files else "missing_required_parameter",
        )
    if body.file is not None:
        return {"file": body.file}
    if len(set(body.files)) != len(body.files):
        raise InvalidRequest("`files` names a file twice.", param="files", code="invalid_value")
    return {f"files[{number}]": file_id for number, file_id in enumerate(body.files)}


def _source(
    session: Session, caller: Caller, param: str, file_id: FileId, *, alone: bool
) -> SourceFile:
    file = get_owned(session, File, caller.project, file_id, param=param)
    if file.purpose != "adapter":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload adapters as 'adapter'.",
            param=param,
            code="invalid_file_purpose",
        )
    report = AdapterReport.model_validate(file.report)
    if (problem := shown_errors(report)) is not None:
        raise InvalidRequest(
            f"File {file.id} cannot be imported: {problem}.", param=param, code="invalid_file"
        )
    if alone != (report.holds == "archive"):
        raise InvalidRequest(
            f"File {file.id} is one file of an adapter's folder. Send all of them as `files`."
            if alone
            else f"File {file.id} is an archive. Send it alone, as `file`.",
            param=param,
            code="invalid_file",
        )
    return SourceFile(id=file.id, name=file.filename, blob_key=file.blob_key)


def _weights(body: CreateSoup) -> tuple[float, ...]:
    count = len(body.models)
    if len(set(body.models)) != count:
        raise InvalidRequest(
            "A model is named twice. Add its weights.", param="models", code="invalid_value"
        )
    if not body.weights:
        return (1 / count,) * count
    if len(body.weights) != count:
        raise InvalidRequest(
            f"There are {count} models and {len(body.weights)} weights.",
            param="weights",
            code="invalid_value",
        )
    if not any(body.weights) or not all(map(math.isfinite, body.weights)):
        raise InvalidRequest("All weights are zero.", param="weights", code="invalid_value")
    return tuple(body.weights)


def _ingredient(model: BatchModel | RefusedModel, name: str, number: int) -> BatchModel:
    param = f"models[{number}]"
    if isinstance(model, RefusedModel):
        error = error_of(model.status, model.body)
        error.param = param
        raise error
    if model.adapter is None:
        raise InvalidRequest(
            f"{name} is a base, which has no adapter to add.", param=param, code="model_not_tuned"
        )
    return model


def _require_one_base(models: Sequence[BatchModel]) -> None:
    for number, model in enumerate(models):
        if model.base != models[0].base:
            raise InvalidRequest(
                f"{model.id} belongs to the base {model.base.id}, and {models[0].id} to "
                f"{models[0].base.id}. Only adapters of one base can be added.",
                param=f"models[{number}]",
                code="impossible_combination",
            )


def _create_soup(
    state: AppState,
    caller: Caller,
    body: CreateSoup,
    models: Sequence[BatchModel],
    weights: tuple[float, ...],
) -> SoupObject:
    with state.transaction() as transaction:
        session = transaction.session
        for model in models:
            assert model.adapter is not None
            pin_model(session, caller.project, ModelId(model.id), model.adapter)
        request = SoupRequest(
            requested_model=models[0].id,
            base=models[0].base,
            models=tuple(models),
            weights=weights,
            suffix=body.suffix,
        )
        soup = request_soup(session, caller.project, request)
        return remember(session, caller, soup_object(_woken(transaction, state, soup)))


def _woken(transaction: Transaction, state: AppState, task: Task) -> Task:
    """Wake a worker after the commit, and return the task as it is stored."""
    transaction.session.refresh(task, ["result", "progress", "error", "created_at"])
    transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
    return task
