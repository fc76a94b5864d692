"""Keeps a claim alive while its job runs, and kills the run when the claim is lost.

A thread of its own does this, so that neither a long upload nor a silent child delays a beat
or lets a cancelled run go on.
"""

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from core.errors import StaleClaim
from core.records import claims
from core.records.claims import Claim
from core.records.database import Database
from worker.launch import Child
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Lease:
    """Beats from `with` to its end; `lost` tells that the job is no longer ours."""

    def __init__(self, database: Database, claim: Claim, settings: WorkerSettings) -> None:
        self.lost = threading.Event()
        self._database = database
        self._claim = claim
        self._settings = settings
        self._ended = threading.Event()
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def guard(self, child: Child) -> None:
        """From now on, losing the claim kills this child."""
        self._child = child
        if self.lost.is_set():
            child.kill()

    def _keep(self) -> None:
        last_beat = time.monotonic()
        while not self._ended.wait(self._settings.check_seconds):
            try:
                if time.monotonic() - last_beat >= self._settings.beat_seconds:
                    self._beat()
                    last_beat = time.monotonic()
                else:
                    self._check()
            except StaleClaim:
                self.lost.set()
                if self._child is not None:
                    self._child.kill()
                return
            except DBAPIError as error:  # the next round is a second away
                logger.warning("The claim could not be checked: %s", error.orig)

    def _beat(self) -> None:
        with self._database.writing() as session:
            claims.beat(session, self._claim, self._settings.lease_seconds)

    def _check(self) -> None:
        with self._database.reading() as session:
            if not claims.stands(session, self._claim):
                raise StaleClaim(f"{self._claim.job_id} was taken away.")
