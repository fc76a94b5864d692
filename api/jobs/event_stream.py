"""A job's history as server-sent events, live until the job has ended.

The stream polls with short sessions: it occupies no connection or thread between two polls.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.auth.caller import Caller
from api.jobs.schemas import EventObject, event_object
from core.jobs.state import FINAL
from core.records.database import Database
from core.records.events import events_since
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.ids import JobId

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
BATCH = 500


def event_response(events: AsyncIterator[str]) -> StreamingResponse:
    """Return a response that streams server-sent events."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@dataclass(frozen=True)
class _NewEvents:
    """Events with their numbers; `is_over` if no more will follow."""

    events: Sequence[tuple[int, EventObject]]
    is_over: bool


async def stream_events(
    database: Database, caller: Caller, job_id: JobId, after: int
) -> AsyncIterator[str]:
    """Yield the events with numbers above `after`, oldest first, until the end of the job.

    `id` is the number, which clients send as `Last-Event-ID`.
    """
    silent_seconds = 0.0
    while True:
        new = await run_in_threadpool(_read_new, database, caller, job_id, after)
        for after, event in new.events:
            yield f"id: {after}\ndata: {event.model_dump_json()}\n\n"
        if new.is_over:
            return
        if new.events:
            silent_seconds = 0.0
            continue
        await anyio.sleep(POLL_SECONDS)
        silent_seconds += POLL_SECONDS
        if silent_seconds >= HEARTBEAT_SECONDS:
            silent_seconds = 0.0
            yield ": still here\n\n"


def _read_new(database: Database, caller: Caller, job_id: JobId, after: int) -> _NewEvents:
    with database.reading() as session:
        job = get_owned(session, Job, caller.project, job_id)
        rows = events_since(session, job_id, after, BATCH)
        last = rows[-1].sequence if rows else after
        return _NewEvents(
            events=[(row.sequence, event_object(row)) for row in rows],
            is_over=job.status in FINAL and last >= job.event_count,
        )
