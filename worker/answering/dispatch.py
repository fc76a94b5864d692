"""Answers requests in the background, as many at once as the engines take.

Batches and eval runs ask in this way. `Requests` says what is asked, and takes the answers.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from core.errors import InvalidRequest, NotFound, TunesmithError
from core.inference.endpoints import answer_in_background, checked_body
from core.inference.targets import target_of_resolved
from core.records.engines import LivingEngine
from core.spec.batch import BatchModel, RefusedModel
from core.spec.engine_protocol import (
    KEY_REFUSED,
    NOT_BEGUN,
    NOT_SERVED_HERE,
    EngineBroke,
    kind_of,
)
from core.spec.ids import ProjectId
from worker.answering.fleet import Fleet, Member

logger = logging.getLogger(__name__)

OK = 200
LOOK_SECONDS = 1.0
"""Between two looks at the database: for engines, and for a cancellation or the expiry."""
IDLE_SECONDS = 0.05
MAX_BROKEN = 2
"""A request that broke so many engines may be the cause. It is sent again at the end, alone."""
MAX_FAILURES = 3
RETRY_SECONDS = 1.0


@dataclass(eq=False, kw_only=True)
class Request:
    """One request, and what happened to it so far."""

    url: str
    body: Mapping[str, Any]
    model: BatchModel | RefusedModel | None
    """What the body's name of a model means; None if it has none."""
    broken: int = 0
    """How often the connection to an engine ended during the answer."""
    failures: int = 0
    """How often an engine failed while it answered."""
    refused_by: set[str] = field(default_factory=set)
    """The addresses of engines that cannot serve the model."""


Asked = TypeVar("Asked", bound=Request)


class Requests(Protocol[Asked]):
    """Where requests come from, and where their answers go."""

    @property
    def is_open(self) -> bool:
        """Whether more requests may come when there is none at the moment."""
        ...

    def take(self) -> Asked | None:
        """Return the next request; None if there is none at the moment."""
        ...

    def answered(self, request: Asked, status: int, body: Mapping[str, Any]) -> None:
        """Take the answer of a request, with its HTTP status."""
        ...

    def refused(self, request: Asked, error: TunesmithError) -> None:
        """Take the error of a request that is not sent again."""
        ...

    async def store(self) -> None:
        """Store the answers so far if it is time to."""
        ...


@dataclass(frozen=True)
class Seen:
    """What a look at the database finds."""

    is_over: bool
    """No more requests may be sent."""
    engines: Sequence[LivingEngine]
    """Those that are alive."""


Look = Callable[[], Seen | None]
"""Blocks; returns None while the database is unavailable."""


class Dispatch(Generic[Asked]):
    """One attempt to answer requests."""

    def __init__(
        self, project: ProjectId, requests: Requests[Asked], fleet: Fleet, look: Look
    ) -> None:
        self._project = project
        self._requests = requests
        self._fleet = fleet
        self._look = look
        self._again: deque[tuple[float, Asked]] = deque()
        """Requests to repeat, each not before a time."""
        self._suspects: deque[Asked] = deque()
        self._in_flight: dict[asyncio.Task[tuple[int, Mapping[str, Any]]], tuple[Asked, Member]]
        self._in_flight = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Send a new request at once."""
        self._woken.set()

    async def run(self) -> None:
        """Return when all requests are answered, or no more may be sent."""
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
                self._woken.clear()
                is_idle = not self._send() and not self._in_flight and not self._again
                if is_idle and not self._requests.is_open:
                    return
                await self._wait()
                await self._requests.store()
        finally:
            for task in self._in_flight:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            await self._fleet.close()

    def _send(self) -> bool:
        """Send requests until the engines are full; return False if none is left to send."""
        while (request := self._next()) is not None:
            member = self._fleet.pick(_resolved(request), request.refused_by)
            if member is None:
                self._again.appendleft((0.0, request))
                return True
            member.in_flight += 1
            task = asyncio.create_task(self._answer(request, member))
            self._in_flight[task] = request, member
        return False

    def _next(self) -> Asked | None:
        """Return the next request: one to repeat, a new one, or at the end a suspect, alone."""
        if self._again and self._again[0][0] <= time.monotonic():
            return self._again.popleft()[1]
        request = self._requests.take()
        if request is None and self._suspects and not self._in_flight and not self._again:
            return self._suspects.popleft()
        return request

    async def _wait(self) -> None:
        """Wait for answers or new requests, at most until the next look."""
        if not self._in_flight:
            seconds = LOOK_SECONDS if self._requests.is_open and not self._again else IDLE_SECONDS
            await _any_of([self._woken.wait()], seconds)
            return
        done = await _any_of([*self._in_flight, self._woken.wait()], LOOK_SECONDS)
        for task in self._in_flight.keys() & done:
            request, member = self._in_flight.pop(task)
            member.in_flight -= 1
            if task.cancelled():
                self._repeat(request)
                continue
            error = task.exception()
            if error is None:
                member.works()
                self._requests.answered(request, *task.result())
            elif isinstance(error, TunesmithError):
                self._failed(request, member, error)
            else:
                logger.error("A request to %s failed.", request.url, exc_info=error)
                self._requests.refused(request, TunesmithError("The service failed."))

    async def _answer(self, request: Asked, member: Member) -> tuple[int, Mapping[str, Any]]:
        body = checked_body(request.url, request.body)
        model = request.model
        if isinstance(model, RefusedModel):
            return model.status, model.body
        if model is None:
            raise InvalidRequest("Missing required parameter: 'model'.", param="model")
        target = target_of_resolved(model)
        return OK, await answer_in_background(
            request.url, member.client, target, self._project, body
        )

    def _failed(self, request: Asked, member: Member, error: TunesmithError) -> None:
        """Repeat a request, or give it the error as its answer."""
        kind = kind_of(error)
        if isinstance(error, InvalidRequest | NotFound) and kind is not NOT_SERVED_HERE:
            self._requests.refused(request, error)
        elif isinstance(error, EngineBroke):
            member.pause()
            request.broken += 1
            if request.broken < MAX_BROKEN:
                self._repeat(request)
            elif request.broken == MAX_BROKEN:
                self._suspects.append(request)
            else:
                self._requests.refused(request, error)
        elif kind is NOT_SERVED_HERE:
            request.refused_by.add(member.url)
            if self._fleet.all_in(request.refused_by):
                self._requests.refused(request, error)
            else:
                self._repeat(request)
        elif kind.asks_another or kind is KEY_REFUSED or error.code in (NOT_BEGUN.codes or ()):
            logger.info("%s does not take a request: %s", member.url, error)
            member.pause()
            self._repeat(request)
        else:
            request.failures += 1
            if request.failures < MAX_FAILURES:
                self._repeat(request, RETRY_SECONDS * request.failures)
            else:
                self._requests.refused(request, error)

    def _repeat(self, request: Asked, after_seconds: float = 0.0) -> None:
        if after_seconds:
            self._again.append((time.monotonic() + after_seconds, request))
        else:
            self._again.appendleft((0.0, request))

    def _give_up(self, lost: Member) -> None:
        """Cancel the requests of an engine that is gone; they are sent again."""
        for task, (_, member) in self._in_flight.items():
            if member is lost:
                task.cancel()


def _resolved(request: Request) -> BatchModel | None:
    return request.model if isinstance(request.model, BatchModel) else None


async def _any_of(work: Sequence[Any], seconds: float) -> set[asyncio.Task[Any]]:
    """Wait until one is done, at most for some time; return those that are. The last is `woken`,
    a coroutine, which ends here."""
    woken = asyncio.create_task(work[-1])
    done, _ = await asyncio.wait(
        {*work[:-1], woken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    woken.cancel()
    return done
