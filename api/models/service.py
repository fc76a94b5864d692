"""The operations of the model routes."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.models.bases import KnownFiles
from api.models.schemas import (
    DeletedModel,
    ModelList,
    ModelObject,
    ServingBody,
    ServingObject,
)
from core.catalog.bases import CatalogEntry
from core.catalog.combinations import require_mergeable
from core.catalog.describe import describe
from core.errors import InvalidRequest
from core.inference.targets import Target, answering, find_target, target_of
from core.records import models, parity
from core.records.engines import living_engines
from core.records.ids import TUNED_PREFIX
from core.records.owned import get_owned
from core.records.tables import TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.ids import ModelId
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice
from core.spec.serving import ServingSpec

WantedState = Literal["present", "downloadable", "missing", "all"]
"""Which bases a list of models has: those in a `BaseState`, or all."""


def find_model(state: AppState, caller: Caller, name: ModelId) -> Target:
    """Return the model with this name; raises the errors of `find_target`."""
    with state.database.reading() as session:
        return find_target(session, state.catalog, caller.project, name)


def find_answering(state: AppState, caller: Caller, name: ModelId | None) -> Target:
    """Return the model that answers a request; raises the errors of `answering`."""
    default = state.settings.default_model
    with state.database.reading() as session:
        return answering(session, state.catalog, caller.project, name, default)


def find(session: Session, state: AppState, caller: Caller, wanted: WantedState) -> ModelList:
    """Return the bases in the state `wanted`, and what can answer besides: the tuned models."""
    precisions, files = _precisions(session), KnownFiles(session, state)
    bases = [_base_object(base, precisions, files) for base in state.catalog.bases()]
    bases = [base for base in bases if wanted in (base.state, "all")]
    tuned = models.list_models(session, caller.project) if wanted in ("present", "all") else ()
    return ModelList(data=[*bases, *map(_tuned_object, tuned)])


def get(session: Session, state: AppState, caller: Caller, name: ModelId) -> ModelObject:
    if name.startswith(TUNED_PREFIX):
        return _tuned_object(get_owned(session, TunedModel, caller.project, name))
    entry = state.catalog.entry(state.catalog.resolve(name).id)
    return _base_object(entry, _precisions(session), KnownFiles(session, state))


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
        spec = models.tuned_spec(session, model)
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
    model, keys = models.delete_model(transaction.session, caller.project, name)
    for key in keys:
        transaction.after_commit(partial(state.store.delete, key))
    return DeletedModel(id=model.id)


def _precisions(session: Session) -> dict[BaseModelSpec, PrecisionChoice]:
    """Return the choices of living engines for bases without an adapter."""
    return {
        each.base: each.precision
        for engine in living_engines(session)
        for each in engine.report.precisions
    }


def _base_object(
    base: CatalogEntry, precisions: Mapping[BaseModelSpec, PrecisionChoice], known: KnownFiles
) -> ModelObject:
    files = known.of(base)
    return ModelObject(
        id=base.id,
        created=base.created,
        owned_by=base.owned_by,
        serving=serving_object(Target(ModelId(base.id), base.spec, None)),
        precision=precisions.get(base.spec),
        state=files.state,
        bytes=files.bytes,
        license=files.license,
    )


def _tuned_object(model: TunedModel) -> ModelObject:
    return ModelObject(
        id=model.id,
        created=int(model.created_at),
        owned_by=model.project_id,
        parity=None if model.parity is None else Parity.model_validate(model.parity),
        published_at=None if model.published_at is None else int(model.published_at),
        unmet_requirements=model.unmet_requirements,
        serving=serving_object(target_of(model)),
    )
