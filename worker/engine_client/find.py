"""Where a worker finds an engine."""

from dataclasses import dataclass

from pydantic import SecretStr

from core.records.database import Database
from core.records.engines import LivingEngine, living_engines
from core.spec.base_model import BaseModelSpec


@dataclass(frozen=True)
class EngineAddress:
    url: str
    key: SecretStr | None = None


def engines_for(
    database: Database, base: BaseModelSpec, key: SecretStr | None
) -> list[EngineAddress]:
    """Return the living engines: first those with the base in memory, then by how busy they are."""

    def reluctance(engine: LivingEngine) -> tuple[bool, int]:
        report = engine.report
        return base not in report.bases, report.running + report.waiting

    with database.reading() as session:
        engines = living_engines(session)
    return [EngineAddress(engine.url, key) for engine in sorted(engines, key=reluctance)]


def find_engine(
    database: Database, base: BaseModelSpec, key: SecretStr | None
) -> EngineAddress | None:
    """Return the first of them, if any engine lives."""
    return next(iter(engines_for(database, base, key)), None)
