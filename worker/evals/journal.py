"""Stores the results of an eval run while it runs, so that a killed worker loses few of them.

A lost result is made again, because no row has its number.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.orm import Session

from core.records.database import Database
from core.records.eval_progress import ItemResult, add_results
from core.records.tasks import TaskClaim
from core.spec.ids import EvalRunId
from worker.outages.commit import commit

FLUSH_RESULTS = 200
FLUSH_SECONDS = 1.0


class Journal:
    """The results of one attempt that are not stored yet."""

    def __init__(self, claim: TaskClaim, database: Database, run_id: EvalRunId) -> None:
        self._claim = claim
        self._database = database
        self._run_id = run_id
        self._results: list[ItemResult] = []
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

    def add(self, result: ItemResult) -> None:
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

    def _store(self, results: Sequence[ItemResult]) -> None:
        for start in range(0, len(results), FLUSH_RESULTS):
            group = results[start : start + FLUSH_RESULTS]
            commit(self._database, partial(self._add, group))

    def _add(self, group: Sequence[ItemResult], session: Session) -> None:
        add_results(session, self._claim, self._run_id, group)
