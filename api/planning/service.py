"""The operations of the planner's routes."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from sqlalchemy.orm import Session

from api.app_state import AppState
from api.auth.caller import Caller
from api.jobs.creation import new_job
from api.jobs.datasets import recheck
from api.jobs.room import PlannedJob, planned_job, planned_run
from api.models.bases import require_files
from api.planning.picture import Bar, draw
from api.planning.schemas import (
    CreateEstimate,
    EstimateError,
    EstimateObject,
    SuggestionObject,
    TokensObject,
    WorkerFitObject,
)
from api.planning.strategy_schemas import StrategyList
from api.planning.table import memory_object, parameters_object, strategy_table
from core.errors import InvalidRequest, NotFound
from core.inference.targets import require_base
from core.planning.configs import config_of
from core.planning.corrections import rows_from, workload_from
from core.planning.cost import step_cost
from core.planning.fit import Correction
from core.planning.run import PlannedRun
from core.records.dry_runs import get_dry_run, request_dry_run
from core.records.jobs import NewJob
from core.records.tables import Task
from core.records.workers import calibrations
from core.spec.base_model import BaseModelSpec
from core.spec.dry_run import DryRunRequest, DryRunResult
from core.spec.ids import ModelId, TaskId
from core.spec.job import JobSpec
from core.tasks.kinds import Work


def strategies(session: Session, state: AppState, name: ModelId) -> StrategyList:
    """Return the comparison of all strategies on a base.

    NotFound `config_not_found` if its config is not on the machine of the API.
    """
    base = require_base(state.catalog, name, "compared")
    config = config_of(base, state.settings.hub_folder)
    if config is None:
        raise _without_config(base)
    return strategy_table(base, config, calibrations(session))


def picture(table: StrategyList) -> str:
    """Return the picture of a comparison."""
    bars = []
    for each in table.data:
        counts = each.parameters
        if counts is None:
            bars.append(Bar(each.type, None, None, "not supported by this base"))
        else:
            bars.append(Bar(each.type, counts.trainable, counts.total - counts.trainable))
    return draw(table.model, table.base_parameters, bars)


def estimate(state: AppState, caller: Caller, body: CreateEstimate) -> EstimateObject:
    """Apply the checks of a job's creation and estimate it; with `dry_run`, wake a worker, too.

    The job is planned before the transaction, which writes only the dry run.
    """
    rechecked = recheck(state, caller, body)
    hub_folder = state.settings.hub_folder
    with state.database.reading() as session:
        new = new_job(session, state.catalog, caller, body, rechecked, hub_folder)
        run = planned_run(session, caller, body, rechecked, new.spec, hub_folder)
        if run is None:
            raise _without_config(new.spec.base)
        if body.dry_run:
            _require_dry_run(session, state, new.spec)
        planned = planned_job(session, caller, run)
    task = _dry_run(state, new, run) if body.dry_run else None
    return _object(state, new.spec, planned, task)


def _require_dry_run(session: Session, state: AppState, spec: JobSpec) -> None:
    """Raise the error of a job that cannot run dry."""
    if spec.parent is not None:
        raise InvalidRequest(
            "A dry run of a tuned model is not supported. Run it on its base, which needs the "
            "same memory and time.",
            param="dry_run",
            code="unsupported_parameter",
        )
    require_files(session, state, spec.base)


def _dry_run(state: AppState, new: NewJob, run: PlannedRun) -> Task:
    with state.transaction() as transaction:
        task = request_dry_run(transaction.session, new, rows_from(run.workload))
        transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
        return task


def get(session: Session, state: AppState, caller: Caller, run_id: TaskId) -> EstimateObject:
    """Return a dry run with the estimate that its figures have corrected."""
    task = get_dry_run(session, caller.project, run_id)
    request = DryRunRequest.model_validate(task.payload)
    config = config_of(request.spec.base, state.settings.hub_folder)
    if config is None:
        raise _without_config(request.spec.base)
    run = _run_of(task, request, config)
    return _object(state, request.spec, planned_job(session, caller, run), task)


def _run_of(task: Task, request: DryRunRequest, config: Mapping[str, Any]) -> PlannedRun:
    """Return the run of a dry run, with its rows as they were counted or, before, estimated."""
    if task.result is not None:
        counted = workload_from(DryRunResult.model_validate(task.result).counted)
        return PlannedRun(request.spec, config, counted)
    assert request.estimated is not None
    return PlannedRun(request.spec, config, workload_from(request.estimated, is_exact=False))


def _object(
    state: AppState, spec: JobSpec, planned: PlannedJob, task: Task | None
) -> EstimateObject:
    run, best = planned.run, planned.best
    seconds = None if best.seconds_per_step is None else best.seconds_per_step * run.steps
    rate = state.settings.price_per_hour
    price = None if rate is None or seconds is None else round(rate * seconds / 3600, 6)
    found = planned.suggestion() if best.verdict in ("no", "tight") else None
    measured = task.result if task is not None else None
    cost = step_cost(run, best.precision, "cpu", checkpointed=best.checkpointed)
    return EstimateObject(
        id=None if task is None else task.id,
        created_at=int(time.time() if task is None else task.created_at),
        status=_status(task),
        model=spec.base.id,
        strategy=spec.strategy,
        strategy_reason=spec.strategy_reason,
        parameters=parameters_object(run.counts),
        precision=best.precision,
        gradient_checkpointing=best.checkpointed,
        memory=memory_object(best),
        tokens=_tokens(run),
        steps=run.steps,
        flops_per_step=cost.flops,
        fits=best.verdict,
        workers=_workers(planned),
        training_seconds=seconds,
        price=price,
        suggestion=found and SuggestionObject(changes=found.changes, message=found.message),
        measured=None if measured is None else DryRunResult.model_validate(measured),
        error=None
        if task is None or task.error is None
        else EstimateError.model_validate(task.error),
    )


def _tokens(run: PlannedRun) -> TokensObject:
    rows = run.workload
    return TokensObject(
        per_epoch=round(rows.tokens),
        trained=round(run.steps * run.tokens_per_step),
        longest_row=rows.longest_tokens,
        is_exact=rows.is_exact,
    )


def _workers(planned: PlannedJob) -> list[WorkerFitObject]:
    shown = []
    for name, fit in planned.fits.items():
        assert fit.verdict and fit.headroom_bytes is not None and fit.seconds_per_step is not None
        shown.append(
            WorkerFitObject(
                worker=name,
                device=planned.workers[name].device,
                fits=fit.verdict,
                headroom_bytes=fit.headroom_bytes,
                peak_memory_bytes=fit.peak_bytes,
                precision=fit.precision,
                gradient_checkpointing=fit.checkpointed,
                training_seconds=fit.seconds_per_step * planned.run.steps,
                is_calibrated_by_dry_run=planned.corrections[name] != Correction(),
            )
        )
    return shown


def _status(task: Task | None) -> Literal["queued", "succeeded", "failed"]:
    if task is not None and task.finished_at is None:
        return "queued"
    return "succeeded" if task is None or task.error is None else "failed"


def _without_config(base: BaseModelSpec) -> NotFound:
    return NotFound(
        f"The config.json of {base.id} is not on the machine of the API, so nothing can be planned "
        f"for it. Download the base (POST /v1/models/{base.id}/download) into a Hugging Face cache "
        "that the API shares (HF_HOME).",
        param="model",
        code="config_not_found",
    )
