"""A job's history as server-sent events, live until the job has ended.

Streams wait together (`api.news`), and those that follow the same job share what is read. They
occupy no connection or thread meanwhile.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.app_state import AppState
from api.auth.caller import Caller
from api.jobs.schemas import event_object
from core.jobs.state import FINAL
from core.records.database import Database
from core.records.events import events_since, positions
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.ids import JobId

HEARTBEAT_SECONDS = 15.0
BATCH = 500


def event_response(events: AsyncIterator[str]) -> StreamingResponse:
    """Return a response that streams server-sent events."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@dataclass(frozen=True)
class NewEvents:
    """Server-sent events; `is_over` if no more will follow."""

    texts: Sequence[str]
    last: int
    """The number of the last event, or of the one before these."""
    is_over: bool


async def stream_events(
    state: AppState, caller: Caller, job_id: JobId, after: int
) -> AsyncIterator[str]:
    """Yield the events with numbers above `after`, oldest first, until the end of the job.

    `id` is the number, which clients send as `Last-Event-ID`.
    """
    while True:
        read = partial(run_in_threadpool, _read_new, state.database, caller, job_id, after)
        new: NewEvents = await state.shared_reads.join((caller.project, job_id, after), read)
        for text in new.texts:
            yield text
        if new.is_over:
            return
        after = new.last
        if len(new.texts) == BATCH:
            continue
        while not await state.job_news.wait(job_id, after, HEARTBEAT_SECONDS):
            yield ": still here\n\n"


def last_events(database: Database, job_ids: Sequence[JobId]) -> dict[JobId, float]:
    """Return the position of each job that exists, for `News`."""
    with database.reading() as session:
        return positions(session, job_ids)


def _read_new(database: Database, caller: Caller, job_id: JobId, after: int) -> NewEvents:
    with database.reading() as session:
        job = get_owned(session, Job, caller.project, job_id)
        rows = events_since(session, job_id, after, BATCH)
        last = rows[-1].sequence if rows else after
        return NewEvents(
            texts=[
                f"id: {row.sequence}\ndata: {event_object(row).model_dump_json()}\n\n"
                for row in rows
            ],
            last=last,
            is_over=job.status in FINAL and last >= job.event_count,
        )
