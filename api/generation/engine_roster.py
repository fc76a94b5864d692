"""The available engines, according to the database and the experience of this process."""

import asyncio
import time
from collections.abc import Sequence
from math import inf

from starlette.concurrency import run_in_threadpool

from core.records.database import Database
from core.records.engines import LivingEngine, living_engines


class EngineRoster:
    """Caches the engines; refreshes from the database in a thread, once for concurrent callers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engines: Sequence[LivingEngine] = ()
        self._read_at = -inf
        self._reading = asyncio.Lock()
        self._left_out: set[tuple[str, float]] = set()

    async def engines(self, max_age_seconds: float) -> Sequence[LivingEngine]:
        """Return the living engines without those left out, at most `max_age_seconds` old."""
        oldest = time.monotonic() - max_age_seconds
        async with self._reading:
            if self._read_at < oldest:
                began_at = time.monotonic()
                self._engines = await run_in_threadpool(self._read)
                self._read_at = began_at
                self._left_out &= {(engine.url, engine.seen_at) for engine in self._engines}
        return [each for each in self._engines if (each.url, each.seen_at) not in self._left_out]

    def leave_out(self, engine: LivingEngine) -> None:
        """Exclude an unreachable engine until its next heartbeat."""
        self._left_out.add((engine.url, engine.seen_at))

    def _read(self) -> Sequence[LivingEngine]:
        with self._database.reading() as session:
            return living_engines(session)
