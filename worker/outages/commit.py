"""Transactions that are retried while the database is unavailable."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from core.records.database import Database

T = TypeVar("T")

logger = logging.getLogger(__name__)

RETRY_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


def commit(database: Database, action: Callable[[Session], T]) -> T:
    """Run `action` in one writing transaction; retry while the database is unavailable.

    `action` may run several times, so it must change nothing outside its session. If only the
    answer to a commit is lost, it runs again although its changes are already stored. Raises the
    last error after RETRY_SECONDS.
    """
    deadline = time.monotonic() + RETRY_SECONDS
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        try:
            with database.writing() as session:
                return action(session)
        except DBAPIError as error:
            if not _is_outage(error) or time.monotonic() > deadline:
                raise
            logger.warning("The database is unavailable; retrying: %s", error.orig)
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


def may_have_committed(error: BaseException) -> bool:
    """Return whether the rows may be stored although `commit` raised: its answer may be lost."""
    return isinstance(error, DBAPIError)


def _is_outage(error: DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
