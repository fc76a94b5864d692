"""Checks every part that a job or an answer needs."""

from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.health.schemas import Readiness, Sandbox
from core.errors import Unavailable
from core.records.engines import LIVING_SECONDS, living_engines
from core.records.workers import SEEN_WITHIN_SECONDS, living_workers
from core.sandbox.availability import availability
from core.tasks.kinds import Queue

OK = "ok"


async def readiness(state: AppState) -> Readiness:
    """Return the state of each part. The service is ready if all are available."""
    found = await run_in_threadpool(_rows, state)
    found["broker"] = await run_in_threadpool(_outcome, state.broker.check)
    found["storage"] = await run_in_threadpool(_outcome, state.store.check)
    is_ready = all(outcome == OK for outcome in found.values())
    found_sandbox = await run_in_threadpool(availability)
    return Readiness(
        status="ok" if is_ready else "not ready",
        parts=found,
        sandbox=Sandbox(kind=found_sandbox.kind, reason=found_sandbox.reason),
    )


def has_engine(state: AppState) -> bool:
    """Return whether the database is available and an engine takes requests."""
    try:
        with state.database.reading() as session:
            return bool(living_engines(session))
    except SQLAlchemyError:
        return False


def _rows(state: AppState) -> dict[str, str]:
    try:
        with state.database.reading() as session:
            seen = living_workers(session, SEEN_WITHIN_SECONDS)
            queues = {worker.queue for worker in seen}
            has_engine = bool(living_engines(session))
    except SQLAlchemyError as error:
        unknown = "unknown without the database"
        others = dict.fromkeys(("worker", "light_worker", "engine"), unknown)
        return {"database": type(error).__name__} | others
    return {
        "database": OK,
        "worker": _seen("worker", Queue.DEVICE in queues),
        "light_worker": _seen("light worker", Queue.LIGHT in queues),
        "engine": OK if has_engine else _unseen("engine that takes requests", LIVING_SECONDS),
    }


def _seen(what: str, is_seen: bool) -> str:
    return OK if is_seen else _unseen(what, SEEN_WITHIN_SECONDS)


def _unseen(what: str, seconds: float) -> str:
    return f"no {what} was seen in the last {seconds:g} seconds"


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except Unavailable as error:
        return error.message
    return OK
