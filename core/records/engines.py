"""Which engines live, where they are and what they have in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import RegisteredEngine
from core.spec.engine_protocol import BEAT_SECONDS, EngineReport

LIVING_SECONDS = 7 * BEAT_SECONDS
"""Generous, as it costs little: who finds nobody at the address asks another engine at once."""


@dataclass(frozen=True)
class LivingEngine:
    """An engine that takes requests, as it described itself at `seen_at`."""

    report: EngineReport
    seen_at: float

    @property
    def url(self) -> str:
        return self.report.url


def engine_seen(session: Session, report: EngineReport) -> None:
    """Store the newest report of an engine.

    Defaults are left out, so that an API of the version before can read the row.
    """
    told = report.model_dump(mode="json", exclude_defaults=True)
    values = {"seen_at": database_now(), "report": told}
    refreshed = session.execute(
        update(RegisteredEngine)
        .where(RegisteredEngine.url == report.url)
        .values(values)
        .returning(RegisteredEngine.url)
        .execution_options(synchronize_session=False)
    ).all()
    if not refreshed:
        session.execute(insert(RegisteredEngine).values(url=report.url, **values))


def engine_gone(session: Session, url: str) -> None:
    session.execute(delete(RegisteredEngine).where(RegisteredEngine.url == url))


def living_engines(session: Session) -> Sequence[LivingEngine]:
    """Engines that were seen lately and are not draining: those that can be asked."""
    rows = session.scalars(
        select(RegisteredEngine)
        .where(RegisteredEngine.seen_at > database_now() - LIVING_SECONDS)
        .order_by(RegisteredEngine.url)
    )
    engines = [LivingEngine(EngineReport.model_validate(row.report), row.seen_at) for row in rows]
    return [engine for engine in engines if engine.report.status == "ready"]


def forget_dead_engines(session: Session, after_seconds: float = LIVING_SECONDS) -> None:
    """Remove engines that were last seen more than `after_seconds` ago."""
    dead = RegisteredEngine.seen_at <= database_now() - after_seconds
    session.execute(delete(RegisteredEngine).where(dead))
