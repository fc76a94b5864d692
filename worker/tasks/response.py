"""Runs a background response: one generation, whose events are stored while they arrive.

An attempt that was killed is repeated with the same seed and the same ids. Its stored events are
not stored twice, so a client that reads them continues where it was.
"""

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.inference.endpoints import Engine, events_of
from core.inference.responses.events import LAST_EVENTS, ResponseWriter, written_events
from core.inference.responses.truncation import begun_response
from core.inference.targets import Target
from core.records.responses import append_events, finish_response, get_response, last_event
from core.spec.ids import ModelId, ResponseId
from core.spec.response import ResponseEnded, ResponsePlan
from worker.answering.background import background_of
from worker.coroutines import run_unless
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt

FLUSH_SECONDS = 0.25
"""The longest time that an event waits before it is stored."""


def run(attempt: Attempt) -> ResponseEnded:
    """Finish the response; raises the engine's refusal, or its failure if it is not an outage."""
    plan = ResponsePlan.model_validate(attempt.payload)
    with attempt.database.reading() as session:
        response = get_response(session, attempt.claim.project_id, ResponseId(plan.id))
        written = last_event(session, response.id)
    if response.is_finished:  # by an attempt that was killed right after it
        return ResponseEnded(status=response.body["status"])
    journal = _Journal(attempt, response.is_streamed, written)
    return run_unless(attempt.should_stop, _respond(attempt, plan, journal))


async def _respond(attempt: Attempt, plan: ResponsePlan, journal: "_Journal") -> ResponseEnded:
    """Generate until it succeeds; wait while no engine is available."""

    async def send(engine: Engine) -> ResponseEnded:
        events = await begun_response(plan, partial(events_of, engine))
        async with aclosing(written_events(ResponseWriter(plan), events)) as written:
            async for event in written:
                journal.add(event)
        return ResponseEnded(status=event["response"]["status"])

    request = plan.request
    target = Target(ModelId(plan.frame["model"]), request.base, request.adapter, request.serving)
    background = background_of(attempt.database, attempt.settings.engine_key)
    return await background.during(background.ask(target, send))


class _Journal:
    """Stores events in batches, each once, and the response with the last of them."""

    def __init__(self, attempt: Attempt, is_streamed: bool, last: int) -> None:
        self._attempt = attempt
        self._is_streamed = is_streamed
        self._last = last
        """The number of the last event that is stored or waits."""
        self._waiting: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event; StaleClaim if it is the last one and the task was cancelled."""
        if self._is_streamed and event["sequence_number"] > self._last:
            self._last = event["sequence_number"]
            self._waiting.append(event)
        if event["type"] in LAST_EVENTS:
            self._store(event["response"])
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        with suppress(StaleClaim):  # the desk notices it too, and ends the attempt
            self._store()

    def _store(self, response: dict[str, Any] | None = None) -> None:
        claim, events = self._attempt.claim, self._waiting

        def write(session: Session) -> None:
            if events:
                append_events(session, claim, events)
            if response is not None:
                finish_response(session, claim, response)

        commit(self._attempt.database, write)
        self._waiting = []
