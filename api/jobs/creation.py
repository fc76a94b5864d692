"""Creates a job from a request, with all checks that need no worker."""

import secrets
from dataclasses import replace
from pathlib import Path

from sqlalchemy.orm import Session

from api.auth.caller import Caller
from api.jobs.datasets import Rechecked, datasets_of
from api.jobs.method import asked_hyperparameters
from api.jobs.objective import resolve_objective, resolve_task
from api.jobs.room import planned_job, planned_run
from api.jobs.schemas import CreateJob
from api.jobs.start import objective_from, starting_point, template_variables
from core.catalog.bases import Catalog
from core.catalog.describe import BaseFacts, describe
from core.catalog.hyperparameters import resolve
from core.catalog.objectives import rows_of
from core.catalog.room import require_room, within_context
from core.errors import InvalidRequest
from core.planning.choice import choose_strategy
from core.records.ids import TUNED_PREFIX
from core.records.jobs import NewJob
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import AutoSpec, LoraSpec, StrategySpec
from core.spec.template import template_time
from core.spec.training import TrainingSpec


def new_job(
    session: Session,
    catalog: Catalog,
    caller: Caller,
    body: CreateJob,
    rechecked: Rechecked,
    hub_folder: Path | None = None,
) -> NewJob:
    """Return the job of `body`. InvalidRequest or NotFound name the wrong field.

    `rechecked` is the result of `api.jobs.datasets.recheck`. A strategy of `auto` is replaced by
    the planner's choice, for which `hub_folder` may have the config of the base.
    """
    if isinstance(body.strategy, AutoSpec):
        return _chosen(session, catalog, caller, body, rechecked, hub_folder)
    _refuse_integrations(body)
    hyperparameters = asked_hyperparameters(body.method, body.hyperparameters)
    start = starting_point(session, catalog, caller, body)
    columns, datasets = datasets_of(session, caller, body, rechecked)
    report = datasets[0].report
    validation_report = datasets[1].report if len(datasets) > 1 else None
    if validation_report is not None:
        _refuse_split(body)
    _require_held_out_rows(body)
    facts = describe(start.base)
    objective = resolve_objective(report, validation_report, hyperparameters)
    task = resolve_task(body.task, objective, start.strategy, facts)
    resolved = resolve(
        hyperparameters,
        body.training,
        rows=rows_of(objective.type, report.format, report.rows),
        strategy=start.strategy,
        objective=objective,
        hidden_size=None if facts is None else facts.hidden_size,
    )
    if facts is not None:
        require_room(start.strategy, facts.context_length, start.base.id)
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    return NewJob(
        project_id=caller.project,
        requested_model=body.model,
        suffix=body.suffix,
        training_file=body.training_file,
        validation_file=body.validation_file,
        spec=JobSpec(
            base=start.base,
            task=task,
            objective=objective_from(start, task, objective),
            strategy=start.strategy,
            training=_fitted(resolved.training, start.strategy, start.base, facts),
            learning_rate_multiplier=resolved.learning_rate_multiplier,
            evaluation=body.evaluation,
            parent=start.parent,
            seed=seed,
            chat_template_kwargs=template_variables(start, body),
            template_time=template_time(datasets[0].file.created_at),
            columns=columns,
        ),
        metadata=body.metadata,
    )


def _chosen(
    session: Session,
    catalog: Catalog,
    caller: Caller,
    body: CreateJob,
    rechecked: Rechecked,
    hub_folder: Path | None,
) -> NewJob:
    """Return the job with the strategy that the planner chooses, and the reason."""

    def with_strategy(strategy: StrategySpec) -> NewJob:
        named = body.model_copy(update={"strategy": strategy})
        return new_job(session, catalog, caller, named, rechecked)

    if body.model.startswith(TUNED_PREFIX):
        kept = body.model_copy(update={"strategy": LoraSpec()})
        kept.model_fields_set.discard("strategy")
        new = new_job(session, catalog, caller, kept, rechecked)
        reason = f"{new.spec.strategy.type}: a tuned model keeps its strategy"
    else:
        new = with_strategy(LoraSpec())
        run = planned_run(session, caller, body, rechecked, new.spec, hub_folder)
        choice = choose_strategy(
            run, lambda each: list(planned_job(session, caller, each).fits.values())
        )
        new, reason = with_strategy(choice.strategy), choice.reason
    return replace(new, spec=new.spec.model_copy(update={"strategy_reason": reason}))


def _refuse_integrations(body: CreateJob) -> None:
    if body.integrations:
        raise InvalidRequest(
            "Integrations are not supported; remove them.",
            param="integrations",
            code="unsupported_parameter",
        )


def _refuse_split(body: CreateJob) -> None:
    if body.evaluation.split:
        raise InvalidRequest(
            "evaluation.split uses a part of the training file for validation, but there is a "
            "validation file; use only one of the two.",
            param="evaluation.split",
            code="contradictory_parameters",
        )


def _require_held_out_rows(body: CreateJob) -> None:
    if body.evaluation.require and not body.evaluation.split and body.validation_file is None:
        raise InvalidRequest(
            "evaluation.require is checked on held-out rows, and there are none. Set "
            "evaluation.split, or send a validation_file.",
            param="evaluation.require",
            code="contradictory_parameters",
        )


def _fitted(
    training: TrainingSpec,
    strategy: StrategySpec,
    base: BaseModelSpec,
    facts: BaseFacts | None,
) -> TrainingSpec:
    """Return `training` limited to the base's context, if the base is readable here."""
    if facts is None:
        return training
    if training.max_length > facts.context_length and "max_length" in training.model_fields_set:
        raise InvalidRequest(
            f"training.max_length is {training.max_length}, but the context of {base.id} holds "
            f"{facts.context_length} tokens.",
            param="training.max_length",
            code="invalid_value",
        )
    return within_context(training, strategy, facts.context_length)
