"""What the API knows of engines, and how seldom it asks the database."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api.generation.engine_roster import EngineRoster
from core.records.database import Database
from core.records.engines import LivingEngine, engine_seen
from core.spec.engine_protocol import EngineReport

A, B = "http://a:8001", "http://b:8001"


class CountedRoster(EngineRoster):
    """Counts its readings; `gate` holds them up."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.readings = 0
        self.gate = threading.Event()
        self.gate.set()

    def _read(self) -> Sequence[LivingEngine]:
        self.readings += 1
        assert self.gate.wait(60)
        return super()._read()

    async def urls(self, max_age_seconds: float) -> list[str]:
        return [engine.url for engine in await self.engines(max_age_seconds)]


@pytest.fixture
def roster(sqlite_url: str) -> Iterator[CountedRoster]:
    database = Database(sqlite_url)
    with database.writing() as session:
        for url in (A, B):
            engine_seen(session, EngineReport(url=url))
    yield CountedRoster(database)
    database.close()


def test_many_that_ask_at_once_cost_one_reading(roster: CountedRoster) -> None:
    async def ask() -> None:
        roster.gate.clear()
        askers = [asyncio.create_task(roster.urls(3600)) for _ in range(50)]
        await asyncio.sleep(0.05)  # the event loop goes on while the database is read
        roster.gate.set()
        assert await asyncio.gather(*askers) == [[A, B]] * 50
        assert await roster.urls(3600) == [A, B]
        assert roster.readings == 1
        assert await roster.urls(0) == [A, B]
        assert roster.readings == 2

    asyncio.run(ask())


def test_a_reading_that_fails_or_is_given_up_counts_for_nothing(roster: CountedRoster) -> None:
    engine = roster._database.engine

    def rename(old: str, new: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    async def ask() -> None:
        rename("engines", "elsewhere")
        with pytest.raises(OperationalError):
            await roster.urls(3600)
        rename("elsewhere", "engines")
        roster.gate.clear()
        asker = asyncio.create_task(roster.urls(3600))
        await asyncio.sleep(0.05)
        asker.cancel()
        roster.gate.set()
        assert await roster.urls(3600) == [A, B]

    asyncio.run(ask())


def test_who_is_left_out_comes_back_with_its_next_report(roster: CountedRoster) -> None:
    async def ask() -> None:
        first, _ = await roster.engines(3600)
        roster.leave_out(first)
        assert await roster.urls(3600) == await roster.urls(0) == [B]
        with roster._database.writing() as session:
            engine_seen(session, first.report)
        assert await roster.urls(0) == [A, B]

    asyncio.run(ask())
