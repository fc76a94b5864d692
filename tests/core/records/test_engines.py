"""Engines by their addresses, as long as they report."""

import pytest
from sqlalchemy import func, select

from core.records.database import Database, database_now
from core.records.engines import (
    LIVING_SECONDS,
    engine_gone,
    engine_seen,
    forget_dead_engines,
    living_engines,
)
from core.records.tables import RegisteredEngine
from core.spec.base_model import BaseModelSpec
from core.spec.engine_protocol import EngineReport

A, B = "http://a:8001", "http://b:8001"
REPORT = EngineReport(
    url=A,
    bases=(BaseModelSpec(id="tiny", source="/models/tiny"),),
    max_bases=2,
    bundles=("0" * 64,),
    running=3,
    waiting=1,
    max_running=8,
)


def urls(database: Database) -> list[str]:
    with database.reading() as session:
        return [engine.url for engine in living_engines(session)]


def silent_for(database: Database, url: str, seconds: float) -> None:
    with database.writing() as session:
        session.get_one(RegisteredEngine, url).seen_at -= seconds


@pytest.fixture
def two(database: Database) -> Database:
    with database.writing() as session:
        for report in (REPORT, EngineReport(url=B)):
            engine_seen(session, report)
    return database


def test_a_report_comes_back_as_it_was_given(two: Database) -> None:
    with two.reading() as session:
        first, second = living_engines(session)
        assert abs(first.seen_at - (session.scalar(select(database_now())) or 0)) < 30
    assert (first.report, second.report) == (REPORT, EngineReport(url=B))


def test_the_next_report_takes_the_place_of_the_last(two: Database) -> None:
    later = REPORT.model_copy(update={"running": 9, "bundles": ()})
    with two.writing() as session:
        before = living_engines(session)[0].seen_at
        engine_seen(session, later)
    with two.reading() as session:
        assert session.scalar(select(func.count()).select_from(RegisteredEngine)) == 2
        found = living_engines(session)[0]
    assert found.report == later
    assert found.seen_at > before, "nobody could tell that there was a heartbeat"


def test_who_drains_is_silent_or_gone_is_not_asked(two: Database) -> None:
    with two.writing() as session:
        engine_seen(session, REPORT.model_copy(update={"status": "draining"}))
    assert urls(two) == [B]
    silent_for(two, B, LIVING_SECONDS + 1)
    assert urls(two) == []
    with two.writing() as session:
        engine_seen(session, REPORT)
        engine_seen(session, EngineReport(url=B))
        engine_gone(session, A)
    assert urls(two) == [B]


def test_the_dead_are_forgotten_and_the_living_stay(two: Database) -> None:
    silent_for(two, B, LIVING_SECONDS + 1)
    with two.writing() as session:
        forget_dead_engines(session)
    with two.reading() as session:
        assert session.scalars(select(RegisteredEngine.url)).all() == [A]
    with two.writing() as session:
        forget_dead_engines(session, after_seconds=0)
    assert urls(two) == []
