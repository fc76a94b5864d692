"""The operations of the comparison routes."""

from functools import partial

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.comparisons.schemas import (
    RESERVED,
    ComparisonObject,
    CreateComparison,
    comparison_object,
)
from api.files.schemas import shown_errors
from api.jobs.graders import models_of_graders
from api.models.resolve import resolved_models
from api.repeats import remember
from core.errors import InvalidRequest
from core.inference.error_bodies import error_of
from core.records.comparisons import get_comparison, request_comparison
from core.records.files import pin_files
from core.records.owned import get_owned
from core.records.tables import File
from core.spec.batch import BatchModel, RefusedModel
from core.spec.comparison import ComparisonRequest
from core.spec.dataset import DatasetReport
from core.spec.ids import TaskId
from core.tasks.kinds import Work


async def create(state: AppState, caller: Caller, body: CreateComparison) -> ComparisonObject:
    """Check the file, the models and the graders, and let a worker ask the models."""
    _check_names(body)
    report = await run_in_threadpool(_report, state, caller, body)
    models = await _models(state, caller, body)
    judges = await models_of_graders(state, caller, body.graders, "graders")
    return await run_in_threadpool(_create, state, caller, body, report, models, judges)


def get(session: Session, caller: Caller, comparison_id: TaskId) -> ComparisonObject:
    return comparison_object(get_comparison(session, caller.project, comparison_id))


def _check_names(body: CreateComparison) -> None:
    names = [grader.name for grader in body.graders]
    for number, name in enumerate(names):
        if name in RESERVED or name in names[:number]:
            raise InvalidRequest(
                f"Another grader or a metric has the name {name!r}. Rename this grader.",
                param=f"graders[{number}].name",
                code="invalid_value",
            )


def _report(state: AppState, caller: Caller, body: CreateComparison) -> DatasetReport:
    with state.database.reading() as session:
        file = get_owned(session, File, caller.project, body.file, param="file")
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload a dataset as 'fine-tune'.",
            param="file",
            code="invalid_file_purpose",
        )
    report = DatasetReport.model_validate(file.report)
    if (errors := shown_errors(report)) is not None:
        raise InvalidRequest(
            f"File {file.id} cannot be used: {errors}.", param="file", code="invalid_file"
        )
    if report.format == "text":
        raise InvalidRequest(
            "Plain texts have no answers to compare with; use rows with messages, prompts with "
            "completions, or texts with labels.",
            param="file",
            code="invalid_file",
        )
    return report


async def _models(
    state: AppState, caller: Caller, body: CreateComparison
) -> tuple[BatchModel, ...]:
    """Return what the names mean, in their order; raises the error of the first that cannot."""
    found = await resolved_models(state, caller, body.models)
    models: list[BatchModel] = []
    for number, name in enumerate(body.models):
        model = found[name]
        if isinstance(model, RefusedModel):
            error = error_of(model.status, model.body)
            error.param = f"models[{number}]"
            raise error
        if model.id in (each.id for each in models):
            raise InvalidRequest(
                f"{name} is the model {model.id}, which an earlier name means, too. Name it once.",
                param=f"models[{number}]",
                code="invalid_value",
            )
        models.append(model)
    return tuple(models)


def _create(
    state: AppState,
    caller: Caller,
    body: CreateComparison,
    report: DatasetReport,
    models: tuple[BatchModel, ...],
    judges: dict[str, BatchModel],
) -> ComparisonObject:
    with state.transaction() as transaction:
        session = transaction.session
        pin_files(session, caller.project, {"file": body.file})
        file = get_owned(session, File, caller.project, body.file, param="file")
        request = ComparisonRequest(
            models=models,
            blob_key=file.blob_key,
            rows=report.rows,
            columns=report.columns,
            graders=body.graders,
            grader_models=judges,
            samples=body.samples,
            seed=body.seed,
            max_tokens=body.max_tokens,
        )
        task = request_comparison(session, caller.project, body.file, request)
        session.refresh(task)
        transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
        return remember(session, caller, comparison_object(task))
