"""What the model routes do, and how a request's `model` is found."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from api.models.schemas import DeletedModel, ModelList, ModelObject
from api.parts import Parts, Transaction
from core.catalog.bases import Catalog, CatalogEntry
from core.errors import InvalidRequest
from core.records import models
from core.records.tables import TunedModel
from core.spec.parity import Parity
from core.spec.run import BaseModelSpec, BundleRef

TUNED_PREFIX = "ft:"


@dataclass(frozen=True)
class Target:
    """A model that can answer: its resolved id, and what the engine must load."""

    id: str
    base: BaseModelSpec
    adapter: BundleRef | None


def find_target(parts: Parts, project: str, name: str) -> Target:
    """Return the model that a request names; NotFound with code `model_not_found`."""
    if not name.startswith(TUNED_PREFIX):
        base = parts.catalog.resolve(name)
        return Target(base.id, base, None)
    with parts.database.reading() as session:
        tuned = models.get_model(session, project, name)
    adapter = BundleRef(key=tuned.bundle_key, sha256=tuned.bundle_sha256)
    return Target(tuned.id, BaseModelSpec.model_validate(tuned.base), adapter)


def find(session: Session, catalog: Catalog, project: str) -> ModelList:
    bases = [_base_object(base) for base in catalog.bases()]
    tuned = [_tuned_object(model) for model in models.list_models(session, project)]
    return ModelList(data=bases + tuned)


def get(session: Session, catalog: Catalog, project: str, name: str) -> ModelObject:
    if name.startswith(TUNED_PREFIX):
        return _tuned_object(models.get_model(session, project, name))
    base_id = catalog.resolve(name).id
    return next(_base_object(base) for base in catalog.bases() if base.id == base_id)


def delete(transaction: Transaction, parts: Parts, project: str, name: str) -> DeletedModel:
    if not name.startswith(TUNED_PREFIX):
        base = parts.catalog.resolve(name)
        raise InvalidRequest(
            f"{base.id} is a base model of the catalog; only tuned models can be deleted.",
            param="model",
            code="model_not_deletable",
        )
    model = models.delete_model(transaction.session, project, name)
    transaction.after_commit(partial(parts.store.delete, model.bundle_key))
    return DeletedModel(id=model.id)


def _base_object(base: CatalogEntry) -> ModelObject:
    return ModelObject(id=base.id, created=base.created, owned_by=base.owned_by)


def _tuned_object(model: TunedModel) -> ModelObject:
    return ModelObject(
        id=model.id,
        created=int(model.created_at),
        owned_by=model.project_id,
        parity=None if model.parity is None else Parity.model_validate(model.parity),
    )
