"""From what a job starts: a base of the catalog, or a tuned model that is trained further."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.auth.caller import Caller
from api.jobs.schemas import CreateJob
from api.models.service import TUNED_PREFIX
from core.catalog.bases import Catalog
from core.errors import InvalidRequest
from core.records.owned import get_owned
from core.records.tables import Job, TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, ObjectiveSpec, Task
from core.spec.strategy import StrategySpec
from core.spec.template import check_template_variables, merged_variables


@dataclass(frozen=True)
class StartingPoint:
    """A base and a strategy; of a tuned model also its bundle, and the spec that made it."""

    base: BaseModelSpec
    strategy: StrategySpec
    parent: BundleRef | None = None
    made: JobSpec | None = None


def starting_point(
    session: Session, catalog: Catalog, caller: Caller, body: CreateJob
) -> StartingPoint:
    """Return what `body.model` names. A tuned model keeps its strategy.

    NotFound names `model`; InvalidRequest names `strategy` when it is given and another one.
    """
    if not body.model.startswith(TUNED_PREFIX):
        return StartingPoint(catalog.resolve(body.model), body.strategy)
    model = get_owned(session, TunedModel, caller.project, body.model)
    made = JobSpec.model_validate(get_owned(session, Job, caller.project, model.job_id).spec)
    if "strategy" in body.model_fields_set and body.strategy != made.strategy:
        raise InvalidRequest(
            f"{body.model} was made with another strategy. Leave the field out, or give "
            f"{made.strategy.model_dump_json()}.",
            param="strategy",
            code="contradictory_parameters",
        )
    parent = BundleRef(key=model.bundle_key, sha256=model.bundle_sha256)
    return StartingPoint(made.base, made.strategy, parent, made)


def template_variables(start: StartingPoint, body: CreateJob) -> dict[str, Any]:
    """Return the variables of the chat template; a tuned model keeps those that `body` leaves out.

    The limits on variables hold for both together: InvalidRequest names `chat_template_kwargs`.
    """
    kept = start.made.chat_template_kwargs if start.made else {}
    merged = merged_variables(kept, body.chat_template_kwargs)
    try:
        check_template_variables(merged)
    except ValueError as fault:
        raise InvalidRequest(
            f"chat_template_kwargs, with those of {body.model}, cannot be used: {fault}.",
            param="chat_template_kwargs",
            code="invalid_value",
        ) from None
    return merged


def objective_of(start: StartingPoint, task: Task, objective: ObjectiveSpec) -> ObjectiveSpec:
    """Return `objective`, for a tuned classifier with that model's labels.

    InvalidRequest when the data asks the tuned model for another task or for other labels.
    """
    made = start.made
    if made is None:
        return objective
    if task != made.task:
        raise InvalidRequest(
            f"The tuned model does {made.task}, but the training file is for {task}. Train its "
            "base model instead.",
            param="training_file",
            code="impossible_combination",
        )
    if not (
        isinstance(objective, ClassificationSpec) and isinstance(made.objective, ClassificationSpec)
    ):
        return objective
    unknown = sorted(set(objective.labels) - set(made.objective.labels))
    if unknown or objective.multi_label != made.objective.multi_label:
        raise InvalidRequest(
            f"The tuned model tells apart the labels {list(made.objective.labels)}"
            + (", several per row" if made.objective.multi_label else ", one per row")
            + f"; the training file has others: {unknown or 'another number per row'}.",
            param="training_file",
            code="label_missing",
        )
    return made.objective
