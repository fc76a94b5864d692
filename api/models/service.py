"""The operations of the model routes, and the lookup of a request's `model`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.models.schemas import (
    DeletedModel,
    ModelList,
    ModelObject,
    ServingBody,
    ServingObject,
)
from core.catalog.bases import Catalog, CatalogEntry
from core.catalog.combinations import require_mergeable
from core.catalog.describe import describe
from core.errors import Conflict, InvalidRequest
from core.records import models, parity
from core.records.engines import living_engines
from core.records.owned import get_owned
from core.records.parity import is_to_be_checked, is_withheld
from core.records.tables import Job, TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.ids import ModelId
from core.spec.job import JobSpec
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice
from core.spec.serving import ADAPTER_FORM, ServingSpec

TUNED_PREFIX = "ft:"


@dataclass(frozen=True)
class Target:
    """A model that can answer: its resolved id, and what the engine must load."""

    id: ModelId
    base: BaseModelSpec
    adapter: BundleRef | None
    serving: ServingSpec = ADAPTER_FORM
    is_to_be_checked: bool = False
    """Its parity has not been checked yet."""


def find_target(state: AppState, caller: Caller, name: ModelId) -> Target:
    """Return the model with this name; NotFound with code `model_not_found`.

    Raises Conflict `parity_failed` for a withheld model.
    """
    if not name.startswith(TUNED_PREFIX):
        base = state.catalog.resolve(name)
        return Target(ModelId(base.id), base, None)
    with state.database.reading() as session:
        model = get_owned(session, TunedModel, caller.project, name)
        if is_withheld(model):
            raise _withheld(model)
        return _target(model)


def find(session: Session, catalog: Catalog, caller: Caller) -> ModelList:
    precisions = _precisions(session)
    bases = [_base_object(base, precisions) for base in catalog.bases()]
    tuned = [_tuned_object(model) for model in models.list_models(session, caller.project)]
    return ModelList(data=bases + tuned)


def get(session: Session, catalog: Catalog, caller: Caller, name: ModelId) -> ModelObject:
    if name.startswith(TUNED_PREFIX):
        return _tuned_object(get_owned(session, TunedModel, caller.project, name))
    base_id = catalog.resolve(name).id
    precisions = _precisions(session)
    return next(_base_object(base, precisions) for base in catalog.bases() if base.id == base_id)


def serve(
    transaction: Transaction, caller: Caller, name: ModelId, body: ServingBody
) -> ModelObject:
    if not name.startswith(TUNED_PREFIX):
        raise InvalidRequest(
            "A base model is served as in its catalog entry; only tuned models have a form to "
            "choose.",
            param="model",
            code="model_not_tuned",
        )
    session = transaction.session
    model = get_owned(session, TunedModel, caller.project, name)
    if body.form == "merged":
        spec = JobSpec.model_validate(get_owned(session, Job, caller.project, model.job_id).spec)
        facts = describe(spec.base)
        stored_quantized = facts is not None and facts.quantized and not spec.base.quantization
        require_mergeable(spec.strategy.type, stored_quantized)
    elif body.quantization is not None:
        raise InvalidRequest(
            "An adapter uses its base unchanged; only merged weights can be quantized.",
            param="quantization",
            code="contradictory_parameters",
        )
    serving = ServingSpec(form=body.form, quantization=body.quantization)
    return _tuned_object(models.set_serving(session, caller.project, name, serving))


def publish(transaction: Transaction, caller: Caller, name: ModelId) -> ModelObject:
    if not name.startswith(TUNED_PREFIX):
        raise InvalidRequest(
            "Base models of the catalog are always available; only tuned models are published.",
            param="model",
            code="model_not_tuned",
        )
    return _tuned_object(parity.publish(transaction.session, caller.project, name))


def serving_object(target: Target) -> ServingObject:
    """Return the response body for a target."""
    if target.serving.form == "merged":
        return ServingObject(form="merged", quantization=target.serving.quantization)
    form: Literal["base", "adapter"] = "base" if target.adapter is None else "adapter"
    return ServingObject(form=form, quantization=target.base.quantization)


def delete(
    transaction: Transaction, state: AppState, caller: Caller, name: ModelId
) -> DeletedModel:
    if not name.startswith(TUNED_PREFIX):
        base = state.catalog.resolve(name)
        raise InvalidRequest(
            f"{base.id} is a base model of the catalog; only tuned models can be deleted.",
            param="model",
            code="model_not_deletable",
        )
    model = models.delete_model(transaction.session, caller.project, name)
    transaction.after_commit(partial(state.store.delete, model.bundle_key))
    return DeletedModel(id=model.id)


def _precisions(session: Session) -> dict[BaseModelSpec, PrecisionChoice]:
    """Return the choices of living engines for bases without an adapter."""
    return {
        each.base: each.precision
        for engine in living_engines(session)
        for each in engine.report.precisions
    }


def _base_object(
    base: CatalogEntry, precisions: Mapping[BaseModelSpec, PrecisionChoice]
) -> ModelObject:
    return ModelObject(
        id=base.id,
        created=base.created,
        owned_by=base.owned_by,
        serving=serving_object(Target(ModelId(base.id), base.spec, None)),
        precision=precisions.get(base.spec),
    )


def _tuned_object(model: TunedModel) -> ModelObject:
    return ModelObject(
        id=model.id,
        created=int(model.created_at),
        owned_by=model.project_id,
        parity=None if model.parity is None else Parity.model_validate(model.parity),
        published_at=None if model.published_at is None else int(model.published_at),
        serving=serving_object(_target(model)),
    )


def _target(model: TunedModel) -> Target:
    return Target(
        model.id,
        BaseModelSpec.model_validate(model.base),
        BundleRef(key=model.bundle_key, sha256=model.bundle_sha256),
        ServingSpec.model_validate(model.serving or {}),
        is_to_be_checked(model),
    )


def _withheld(model: TunedModel) -> Conflict:
    found = Parity.model_validate(model.parity)
    return Conflict(
        f"The model {model.id!r} is not served as it was trained ({found.differs}). "
        f"{found.reason} To use it anyway, send POST /v1/models/{model.id}/publish.",
        param="model",
        code="parity_failed",
    )
