"""Finds the model that a request names: a base of the catalog, or a tuned model of the project."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.catalog.bases import Catalog
from core.errors import Conflict, InvalidRequest, NotFound
from core.records.ids import TUNED_PREFIX
from core.records.owned import get_owned
from core.records.parity import has_failed, is_to_be_checked, is_withheld
from core.records.tables import TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.bundle import BundleRef
from core.spec.ids import ModelId, ProjectId
from core.spec.parity import Parity
from core.spec.serving import ADAPTER_FORM, ServingSpec


@dataclass(frozen=True)
class Target:
    """A model that can answer: its resolved id, and what the engine must load."""

    id: ModelId
    base: BaseModelSpec
    adapter: BundleRef | None
    serving: ServingSpec = ADAPTER_FORM
    is_to_be_checked: bool = False
    """Its parity has not been checked yet."""


def answering(
    session: Session,
    catalog: Catalog,
    project: ProjectId,
    name: ModelId | None,
    default: ModelId | None,
) -> Target:
    """Return the model that answers a request for `name`: the default one if no model has it.

    A tuned model is never replaced: the caller of a deleted one should learn that. Raises
    InvalidRequest if neither a name nor a default is given, and the errors of `find_target`.
    """
    if not name and default is None:
        raise InvalidRequest(
            "Missing required parameter: 'model'.",
            param="model",
            code="missing_required_parameter",
        )
    if name and (default is None or name.startswith(TUNED_PREFIX)):
        return find_target(session, catalog, project, name)
    assert default is not None
    try:
        return find_target(session, catalog, project, name or default)
    except NotFound:
        return find_target(session, catalog, project, default)


def require_base(catalog: Catalog, name: ModelId, verb: str) -> BaseModelSpec:
    """Return the base with this name; InvalidRequest `model_not_base` for a tuned model.

    `verb` says what only bases can be. NotFound `model_not_found` for any other name.
    """
    if name.startswith(TUNED_PREFIX):
        raise InvalidRequest(
            f"{name} is a tuned model; only base models of the catalog are {verb}.",
            param="model",
            code="model_not_base",
        )
    return catalog.resolve(name)


def find_target(session: Session, catalog: Catalog, project: ProjectId, name: ModelId) -> Target:
    """Return the model with this name; NotFound with code `model_not_found`.

    Raises Conflict `parity_failed` or `requirement_failed` for a withheld model.
    """
    if not name.startswith(TUNED_PREFIX):
        base = catalog.resolve(name)
        return Target(ModelId(base.id), base, None)
    model = get_owned(session, TunedModel, project, name)
    if is_withheld(model):
        raise _withheld(model)
    return target_of(model)


def target_of(model: TunedModel) -> Target:
    return Target(
        model.id,
        BaseModelSpec.model_validate(model.base),
        BundleRef(key=model.bundle_key, sha256=model.bundle_sha256),
        ServingSpec.model_validate(model.serving or {}),
        is_to_be_checked(model),
    )


def target_of_resolved(model: BatchModel) -> Target:
    """Return the model that a name meant when it was resolved."""
    return Target(ModelId(model.id), model.base, model.adapter, model.serving)


def _withheld(model: TunedModel) -> Conflict:
    publish = f"To use it anyway, send POST /v1/models/{model.id}/publish."
    if not has_failed(model):
        return Conflict(
            f"The model {model.id!r} does not meet the requirements of its job: "
            f"{model.unmet_requirements} {publish}",
            param="model",
            code="requirement_failed",
        )
    found = Parity.model_validate(model.parity)
    return Conflict(
        f"The model {model.id!r} is not served as it was trained ({found.differs}). "
        f"{found.reason} {publish}",
        param="model",
        code="parity_failed",
    )
