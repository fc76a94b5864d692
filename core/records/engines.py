"""The living engines, with their addresses and resident models."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import RegisteredEngine
from core.spec.engine_protocol import BEAT_SECONDS, EngineReport

LIVING_SECONDS = 7 * BEAT_SECONDS
"""Generous, because a dead engine costs little: a caller tries the next one at once."""


@dataclass(frozen=True)
class LivingEngine:
    """An engine that accepts requests, with its report of the time `seen_at`."""

    report: EngineReport
    seen_at: float

    @property
    def url(self) -> str:
        return self.report.url


def engine_seen(session: Session, report: EngineReport) -> None:
    """Store the newest report of an engine.

    Defaults are omitted, so that an API of the previous version can read the row.
    """
    fields = report.model_dump(mode="json", exclude_defaults=True)
    values = {"seen_at": database_now(), "report": fields}
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
    """Return the engines that were seen recently and are not draining."""
    rows = session.scalars(
        select(RegisteredEngine)
        .where(RegisteredEngine.seen_at > database_now() - LIVING_SECONDS)
        .order_by(RegisteredEngine.url)
    )
    engines = [LivingEngine(EngineReport.model_validate(row.report), row.seen_at) for row in rows]
    return [engine for engine in engines if engine.report.status == "ready"]


def forget_dead_engines(session: Session, after_seconds: float = LIVING_SECONDS) -> None:
    """Delete engines that were last seen more than `after_seconds` ago."""
    dead = RegisteredEngine.seen_at <= database_now() - after_seconds
    session.execute(delete(RegisteredEngine).where(dead))
