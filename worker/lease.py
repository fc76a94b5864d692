"""Keeps a claim alive while its job runs, kills the run when the claim is lost, sees a pause.

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
    """Beats from `with` to its end.

    `lost` tells that the job is no longer ours, `pause_requested` that it is to be parked. It
    stays set when the request is withdrawn: the child may have been asked to stop by then.
    """

    def __init__(self, database: Database, claim: Claim, settings: WorkerSettings) -> None:
        self.lost = threading.Event()
        self.pause_requested = threading.Event()
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
                self._look()
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

    def _look(self) -> None:
        with self._database.reading() as session:
            if claims.is_pause_requested(session, self._claim):
                self.pause_requested.set()
