"""What the dispatch looks for in the database while it answers requests."""

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core.records.database import Database
from core.records.engines import living_engines
from worker.answering.dispatch import Look, Seen

logger = logging.getLogger(__name__)


def look_at(database: Database, is_over: Callable[[Session], bool] = lambda session: False) -> Look:
    """Return a look for living engines, and for the end of the work."""

    def look() -> Seen | None:
        try:
            with database.reading() as session:
                return Seen(is_over(session), living_engines(session))
        except DBAPIError as error:
            logger.warning("The database is unavailable: %s", error.orig)
            return None

    return look
