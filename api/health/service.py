"""Asks every part that a job or an answer needs."""

from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.health.schemas import Readiness
from api.parts import Parts
from core.errors import Unavailable
from core.records.workers import living_workers

OK = "ok"
WORKER_SEEN_WITHIN_SECONDS = 30.0


async def readiness(parts: Parts) -> Readiness:
    """Say which parts answer. The service is ready when all do."""
    found = await run_in_threadpool(_rows, parts)
    found["broker"] = await run_in_threadpool(_outcome, parts.broker.check)
    found["storage"] = await run_in_threadpool(_outcome, parts.store.check)
    try:
        await parts.engine.check()
        found["engine"] = OK
    except Unavailable as error:
        found["engine"] = error.message
    is_ready = all(outcome == OK for outcome in found.values())
    return Readiness(status="ok" if is_ready else "not ready", parts=found)


def _rows(parts: Parts) -> dict[str, str]:
    try:
        with parts.database.reading() as session:
            is_someone_there = bool(living_workers(session, WORKER_SEEN_WITHIN_SECONDS))
    except SQLAlchemyError as error:
        return {"database": type(error).__name__, "worker": "unknown without the database"}
    missing = f"no worker was seen in the last {WORKER_SEEN_WITHIN_SECONDS:g} seconds"
    return {"database": OK, "worker": OK if is_someone_there else missing}


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except Unavailable as error:
        return error.message
    return OK
