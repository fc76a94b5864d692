"""Renews the lease of a claim while its work runs, and detects when the claim is lost.

This happens in a separate thread, so that neither a long upload nor a silent child delays a
heartbeat, or lets cancelled work continue.
"""

import logging
import threading
import time
from math import inf

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.records import leases
from core.records.database import Database
from core.records.leases import Fence

logger = logging.getLogger(__name__)


class Lease:
    """Renews the lease during a `with` block. `lost` is set once the claim has ended.

    After `renew_seconds` the lease is not renewed, so work that exceeds its limit loses its claim.
    """

    def __init__(
        self,
        database: Database,
        fence: Fence,
        *,
        lease_seconds: float,
        check_seconds: float,
        renew_seconds: float = inf,
    ) -> None:
        self.lost = threading.Event()
        self._database = database
        self._fence = fence
        self._lease_seconds = lease_seconds
        self._check_seconds = check_seconds
        self._renew_seconds = renew_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        began_at = last_beat = time.monotonic()
        while not self._ended.wait(self._check_seconds):
            now = time.monotonic()
            try:
                is_due = now - last_beat >= self._lease_seconds / 3
                if is_due and now - began_at <= self._renew_seconds:
                    self._beat()
                    last_beat = now
                with self._database.reading() as session:
                    self._check(session)
            except StaleClaim:
                self._lose()
                return
            except SQLAlchemyError as error:  # the next round tries again
                logger.warning("The claim could not be checked: %s", error)

    def _beat(self) -> None:
        with self._database.writing() as session:
            leases.beat(session, self._fence, self._lease_seconds)

    def _check(self, session: Session) -> None:
        """Raise StaleClaim if the claim has ended."""
        if not leases.is_current(session, self._fence):
            raise StaleClaim(f"{self._fence.id} was cancelled or given to another worker.")

    def _lose(self) -> None:
        self.lost.set()
