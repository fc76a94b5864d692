"""The lease of a job that a child trains."""

import threading

from sqlalchemy.orm import Session

from core.records import claims
from core.records.claims import Claim
from core.records.database import Database
from worker.launch import Child
from worker.lease import Lease
from worker.settings import WorkerSettings


class JobLease(Lease):
    """Kills the child when the claim is lost, and detects that a pause is requested.

    `pause_requested` stays set if the request is withdrawn, because the child may already have been
    asked to stop.
    """

    def __init__(self, database: Database, claim: Claim, settings: WorkerSettings) -> None:
        super().__init__(
            database,
            claim,
            lease_seconds=settings.lease_seconds,
            check_seconds=settings.check_seconds,
        )
        self.pause_requested = threading.Event()
        self._claim = claim
        self._child: Child | None = None

    def guard(self, child: Child) -> None:
        """Kill this child when the claim is lost."""
        self._child = child
        if self.lost.is_set():
            child.kill()

    def _check(self, session: Session) -> None:
        if claims.is_pause_requested(session, self._claim):
            self.pause_requested.set()

    def _lose(self) -> None:
        super()._lose()
        if self._child is not None:
            self._child.kill()
