"""Where a worker finds an engine."""

from dataclasses import dataclass

from pydantic import SecretStr

from core.records.database import Database
from core.records.engine_order import in_order
from core.records.engines import living_engines
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef


@dataclass(frozen=True)
class EngineAddress:
    url: str
    key: SecretStr | None = None


def engines_for(
    database: Database, base: BaseModelSpec, adapter: BundleRef | None, key: SecretStr | None
) -> list[EngineAddress]:
    """Return the living engines in the order in which the API asks them for this model."""
    with database.reading() as session:
        engines = living_engines(session)
    return [EngineAddress(each.url, key) for each in in_order(engines, base, adapter, {})]


def find_engine(
    database: Database, base: BaseModelSpec, adapter: BundleRef | None, key: SecretStr | None
) -> EngineAddress | None:
    """Return the first of these engines; None if there is none."""
    return next(iter(engines_for(database, base, adapter, key)), None)
