"""Where a worker finds an engine."""

from dataclasses import dataclass

from pydantic import SecretStr

from core.records.database import Database
from core.records.engines import LivingEngine, living_engines
from core.spec.run import BaseModelSpec


@dataclass(frozen=True)
class EngineAddress:
    url: str
    key: SecretStr | None = None


def find_engine(
    database: Database, base: BaseModelSpec, key: SecretStr | None
) -> EngineAddress | None:
    """Return a living engine, one with the base in memory if there is, or the least busy one."""

    def reluctance(engine: LivingEngine) -> tuple[bool, int]:
        report = engine.report
        return base not in report.bases, report.running + report.waiting

    with database.reading() as session:
        engines = living_engines(session)
    best = min(engines, key=reluctance, default=None)
    return None if best is None else EngineAddress(best.url, key)
