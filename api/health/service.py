"""Asks every part that a job or an answer needs."""

from collections.abc import Callable
from functools import partial

from starlette.concurrency import run_in_threadpool

from api.health.schemas import Readiness
from api.parts import Parts
from core.errors import Unavailable
from core.records.workers import living_workers

WORKER_SEEN_WITHIN_SECONDS = 30.0


async def readiness(parts: Parts) -> Readiness:
    checks: dict[str, Callable[[], None]] = {
        "database and worker": partial(_check_worker, parts),
        "broker": parts.broker.check,
    }
    found = {name: await run_in_threadpool(_outcome, check) for name, check in checks.items()}
    try:
        await parts.engine.check()
        found["engine"] = "ok"
    except Unavailable as error:
        found["engine"] = error.message
    is_ready = all(outcome == "ok" for outcome in found.values())
    return Readiness(status="ok" if is_ready else "not ready", parts=found)
