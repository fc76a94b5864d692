"""The starting point of a job: a base of the catalog, or a tuned model."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.auth.caller import Caller
from api.jobs.schemas import CreateJob
from core.catalog.bases import Catalog
from core.errors import InvalidRequest
from core.records.ids import TUNED_PREFIX
from core.records.models import tuned_spec
from core.records.owned import get_owned
from core.records.tables import TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.objective import ClassificationSpec, ObjectiveSpec, Task
from core.spec.strategy import (
    AskedStrategySpec,
    AutoSpec,
    LoraSpec,
    LowRankSpec,
    QloraSpec,
    StrategySpec,
)
from core.spec.template import check_template_variables, merged_variables
from core.spec.tuned import TunedSpec

_OF_QUANTIZATION = {"type", "quantization", "double_quantization"}
"""What may change when a low-rank adapter is trained further."""


@dataclass(frozen=True)
class StartingPoint:
    """A base and a strategy; for a tuned model also its bundle, and what it is."""

    base: BaseModelSpec
    strategy: StrategySpec
    parent: BundleRef | None = None
    made: TunedSpec | None = None


def starting_point(
    session: Session, catalog: Catalog, caller: Caller, body: CreateJob
) -> StartingPoint:
    """Return the starting point `body.model`. A tuned model keeps its strategy.

    A strategy of `auto` on a base is LoRA until the planner has chosen. Raises NotFound for
    `model`, or InvalidRequest if another `strategy` is given than `continued` allows.
    """
    asked = body.strategy
    if not body.model.startswith(TUNED_PREFIX):
        strategy = LoraSpec() if isinstance(asked, AutoSpec) else asked
        return StartingPoint(catalog.resolve(body.model), strategy)
    model = get_owned(session, TunedModel, caller.project, body.model)
    made = tuned_spec(session, model)
    is_named = "strategy" in body.model_fields_set and not isinstance(asked, AutoSpec)
    further = continued(made.strategy, asked) if is_named else made.strategy
    if further is None:
        raise InvalidRequest(
            f"{body.model} was trained with another strategy. Remove the field, or use "
            f"{made.strategy.model_dump_json()}.",
            param="strategy",
            code="contradictory_parameters",
        )
    parent = BundleRef(key=model.bundle_key, sha256=model.bundle_sha256)
    return StartingPoint(made.base, further, parent, made)


def continued(made: StrategySpec, asked: AskedStrategySpec) -> StrategySpec | None:
    """Return the strategy with which a model of `made` is trained further; None for another one.

    Fields that are not given are the model's. LoRA has the same weights on a dense and on a
    quantized base, so `lora` and `qlora` may follow one another.
    """
    is_low_rank = isinstance(made, LowRankSpec) and isinstance(asked, LoraSpec | QloraSpec)
    if isinstance(asked, AutoSpec) or not (is_low_rank or type(asked) is type(made)):
        return None
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    fields = {name: value for name, value in made if name in type(asked).model_fields}
    found = asked.model_copy(update={**fields, "type": asked.type, **given})
    free = _OF_QUANTIZATION if is_low_rank else set()
    return found if found.model_dump(exclude=free) == made.model_dump(exclude=free) else None


def template_variables(start: StartingPoint, body: CreateJob) -> dict[str, Any]:
    """Return the variables of the chat template: those of a tuned model, overridden by `body`.

    The limits apply to both together: InvalidRequest names `chat_template_kwargs`.
    """
    kept = start.made.chat_template_kwargs if start.made else {}
    merged = merged_variables(kept, body.chat_template_kwargs)
    try:
        check_template_variables(merged)
    except ValueError as error:
        raise InvalidRequest(
            f"chat_template_kwargs, with those of {body.model}, are invalid: {error}.",
            param="chat_template_kwargs",
            code="invalid_value",
        ) from None
    return merged


def objective_from(start: StartingPoint, task: Task, objective: ObjectiveSpec) -> ObjectiveSpec:
    """Return `objective`; for a tuned classifier, with that model's labels.

    InvalidRequest if the data requires another task or other labels than those of the tuned model.
    """
    made = start.made
    if made is None:
        return objective
    if task != made.task:
        raise InvalidRequest(
            f"The task of the tuned model is {made.task}, but the training file is for {task}. "
            "Train its base model instead.",
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
            f"The tuned model has the labels {list(made.objective.labels)}"
            + (", several per row" if made.objective.multi_label else ", one per row")
            + f"; the training file has others: {unknown or 'another number per row'}.",
            param="training_file",
            code="label_missing",
        )
    return made.objective
