"""Stores results while a task makes them, so that a killed worker loses few of them.

A lost result is made again, because no row has its number.
"""

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from core.records.database import Database
from worker.outages.commit import commit

FLUSH_RESULTS = 200
FLUSH_SECONDS = 1.0


Result = TypeVar("Result")


class Journal(Generic[Result]):
    """The results of one attempt that are not stored yet."""

    def __init__(
        self, database: Database, add: Callable[[Session, Sequence[Result]], None]
    ) -> None:
        """`add` stores a group under the claim, and nothing if the group is stored already."""
        self._database = database
        self._add = add
        self._results: list[Result] = []
        self._stored_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether enough results or time have passed."""
        is_late = time.monotonic() - self._stored_at >= FLUSH_SECONDS
        return bool(self._results) and (is_late or len(self._results) >= FLUSH_RESULTS)

    @property
    def waiting(self) -> int:
        """Return the number of results that are not stored yet."""
        return len(self._results)

    def add(self, result: Result) -> None:
        self._results.append(result)

    def taken(self) -> Callable[[], None]:
        """Return the write of the results so far, which blocks; others may be added meanwhile.

        It raises StaleClaim if the claim has ended.
        """
        results, self._results = self._results, []
        self._stored_at = time.monotonic()
        return lambda: self._store(results)

    def store(self) -> None:
        """Store everything."""
        self.taken()()

    def _store(self, results: Sequence[Result]) -> None:
        for start in range(0, len(results), FLUSH_RESULTS):
            group = results[start : start + FLUSH_RESULTS]
            self._store_group(group)

    def _store_group(self, group: Sequence[Result]) -> None:
        commit(self._database, lambda session: self._add(session, group))
