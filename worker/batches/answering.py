"""Answers the lines of a batch, as many at once as the engines take."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from core.errors import InvalidRequest, NotFound, TunesmithError
from core.inference.endpoints import answer_in_background, checked_body
from core.inference.targets import target_of_resolved
from core.records.engines import LivingEngine
from core.spec.batch import BatchModel, BatchRequest, RefusedModel
from core.spec.engine_protocol import (
    KEY_REFUSED,
    NOT_BEGUN,
    NOT_SERVED_HERE,
    EngineBroke,
    kind_of,
)
from core.spec.ids import ProjectId
from worker.batches.fleet import Fleet, Member
from worker.batches.journal import Journal
from worker.batches.lines import (
    OK,
    AnsweredLine,
    LineRequest,
    answered_line,
    refused_line,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the database: for engines, and for a cancellation or the expiry."""
IDLE_SECONDS = 0.05
MAX_BROKEN = 2
"""A line that broke so many engines may be the cause. It is sent again at the end, alone."""
MAX_FAILURES = 3
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Seen:
    """What a look at the database finds."""

    is_over: bool
    """The batch is cancelled, or its window has ended: no more requests may be sent."""
    engines: Sequence[LivingEngine]
    """Those that are alive."""


Look = Callable[[], Seen | None]
"""Blocks; returns None while the database is unavailable."""


class Answering:
    """One attempt to answer the remaining lines."""

    def __init__(
        self,
        batch: BatchRequest,
        project: ProjectId,
        requests: Iterator[LineRequest],
        journal: Journal,
        fleet: Fleet,
        look: Look,
    ) -> None:
        self._batch = batch
        self._project = project
        self._requests = requests
        self._journal = journal
        self._fleet = fleet
        self._look = look
        self._again: deque[tuple[float, LineRequest]] = deque()
        """Requests to repeat, each not before a time."""
        self._suspects: deque[LineRequest] = deque()
        self._in_flight: dict[asyncio.Task[AnsweredLine], tuple[LineRequest, Member]] = {}

    async def run(self) -> None:
        """Return when all lines are answered, or the batch is cancelled or has expired."""
        looked_at = -LOOK_SECONDS
        try:
            while True:
                if time.monotonic() - looked_at >= LOOK_SECONDS:
                    looked_at = time.monotonic()
                    seen = await asyncio.to_thread(self._look)
                    if seen is not None and seen.is_over:
                        return
                    for lost in self._fleet.update(seen.engines) if seen is not None else ():
                        self._give_up(lost)
                if not self._send() and not self._in_flight and not self._again:
                    return
                await self._wait()
                if self._journal.is_due:
                    await asyncio.to_thread(self._journal.store)
        finally:
            for task in self._in_flight:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            await self._fleet.close()

    def _send(self) -> bool:
        """Send requests until the engines are full; return False if none is left to send."""
        while (request := self._next()) is not None:
            model = self._model_of(request)
            member = self._fleet.pick(model, request.refused_by)
            if member is None:
                self._again.appendleft((0.0, request))
                return True
            member.in_flight += 1
            task = asyncio.create_task(self._answer(request, member))
            self._in_flight[task] = request, member
        return False

    def _next(self) -> LineRequest | None:
        """Return the next request: one to repeat, a new one, or at the end a suspect, alone."""
        if self._again and self._again[0][0] <= time.monotonic():
            return self._again.popleft()[1]
        request = next(self._requests, None)
        if request is None and self._suspects and not self._in_flight and not self._again:
            return self._suspects.popleft()
        return request

    async def _wait(self) -> None:
        """Wait for answers, at most until the next look."""
        if not self._in_flight:
            await asyncio.sleep(IDLE_SECONDS)
            return
        done, _ = await asyncio.wait(
            self._in_flight, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            request, member = self._in_flight.pop(task)
            member.in_flight -= 1
            if task.cancelled():
                self._repeat(request)
                continue
            error = task.exception()
            if error is None:
                member.works()
                self._journal.add(task.result())
            elif isinstance(error, TunesmithError):
                self._failed(request, member, error)
            else:
                logger.error("A line of %s failed.", self._batch.batch_id, exc_info=error)
                self._journal.add(refused_line(request, TunesmithError("The service failed.")))

    async def _answer(self, request: LineRequest, member: Member) -> AnsweredLine:
        url = self._batch.endpoint
        body = checked_body(url, request.body)
        model = self._model_of(request)
        if model is None:
            refused = self._batch.models.get(str(request.body.get("model")))
            if isinstance(refused, RefusedModel):
                return answered_line(request, refused.status, refused.body)
            raise InvalidRequest("Missing required parameter: 'model'.", param="model")
        target = target_of_resolved(model)
        answer = await answer_in_background(url, member.client, target, self._project, body)
        return answered_line(request, OK, answer)

    def _model_of(self, request: LineRequest) -> BatchModel | None:
        model = self._batch.models.get(str(request.body.get("model")))
        return model if isinstance(model, BatchModel) else None

    def _failed(self, request: LineRequest, member: Member, error: TunesmithError) -> None:
        """Repeat a request, or give it the error as its answer."""
        kind = kind_of(error)
        if isinstance(error, InvalidRequest | NotFound) and kind is not NOT_SERVED_HERE:
            self._journal.add(refused_line(request, error))
        elif isinstance(error, EngineBroke):
            member.pause()
            request.broken += 1
            if request.broken < MAX_BROKEN:
                self._repeat(request)
            elif request.broken == MAX_BROKEN:
                self._suspects.append(request)
            else:
                self._journal.add(refused_line(request, error))
        elif kind is NOT_SERVED_HERE:
            request.refused_by.add(member.url)
            if self._fleet.all_in(request.refused_by):
                self._journal.add(refused_line(request, error))
            else:
                self._repeat(request)
        elif kind.asks_another or kind is KEY_REFUSED or error.code in (NOT_BEGUN.codes or ()):
            logger.info("%s does not take a line: %s", member.url, error)
            member.pause()
            self._repeat(request)
        else:
            request.failures += 1
            if request.failures < MAX_FAILURES:
                self._repeat(request, RETRY_SECONDS * request.failures)
            else:
                self._journal.add(refused_line(request, error))

    def _repeat(self, request: LineRequest, after_seconds: float = 0.0) -> None:
        if after_seconds:
            self._again.append((time.monotonic() + after_seconds, request))
        else:
            self._again.appendleft((0.0, request))

    def _give_up(self, lost: Member) -> None:
        """Cancel the requests of an engine that is gone; they are sent again."""
        for task, (_, member) in self._in_flight.items():
            if member is lost:
                task.cancel()
