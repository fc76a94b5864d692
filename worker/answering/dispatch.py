"""Answers requests in the background, as many at once as the engines take.

All of a worker's requests for answers go this way. `Requests` says what is asked, and takes the
answers: those of a batch are the lines of its file; `background.py` has those of coroutines.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.inference.endpoints import Engine
from core.inference.targets import Target
from core.records.engines import LivingEngine
from core.spec.engine_protocol import (
    BASE_MISSING,
    KEY_REFUSED,
    NOT_BEGUN,
    NOT_SERVED_HERE,
    EngineBroke,
    kind_of,
    turned_down,
)
from worker.answering.fleet import Fleet, Member

logger = logging.getLogger(__name__)

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

    target: Target | None
    """The model that decides which engine is suitable; None: any is."""
    send: Callable[[Engine], Awaitable[Any]]
    """Returns the answer of one engine. Its TunesmithErrors decide what follows."""
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

    def answered(self, request: Asked, answer: Any) -> None:
        """Take the answer of a request."""
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
        self,
        requests: Requests[Asked],
        fleet: Fleet,
        look: Look,
        patience_seconds: float = math.inf,
    ) -> None:
        """After `patience_seconds` in which no engine takes any of the requests, `run` ends."""
        self._requests = requests
        self._fleet = fleet
        self._look = look
        self._patience_seconds = patience_seconds
        self._hopeful_at = time.monotonic()
        """When the last request had its turn at an engine, or none was waiting."""
        self._turned_down = turned_down([])
        """Why the requests wait."""
        self._again: deque[tuple[float, Asked]] = deque()
        """Requests to repeat, each not before a time."""
        self._suspects: deque[Asked] = deque()
        self._in_flight: dict[asyncio.Task[Any], tuple[Asked, Member]] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Send a new request at once."""
        self._woken.set()

    async def run(self) -> None:
        """Return when all requests are answered, or no more may be sent.

        Raises Unavailable when the patience is at its end.
        """
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
                self._require_patience()
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
            member = self._fleet.pick(request.target, request.refused_by)
            if member is None:
                self._again.appendleft((0.0, request))
                return True
            member.in_flight += 1
            task = asyncio.create_task(_answer(request, member))
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
                self._hopeful_at = time.monotonic()
                self._requests.answered(request, task.result())
            elif isinstance(error, TunesmithError):
                self._failed(request, member, error)
            else:
                logger.error("A request to %s failed.", member.url, exc_info=error)
                self._requests.refused(request, TunesmithError("The service failed."))

    def _failed(self, request: Asked, member: Member, error: TunesmithError) -> None:
        """Repeat a request, or give it the error as its answer."""
        kind = kind_of(error)
        if kind is NOT_SERVED_HERE or kind is BASE_MISSING:
            request.refused_by.add(member.url)
            if self._fleet.all_in(request.refused_by):
                self._requests.refused(request, error)
            else:
                self._repeat(request)
        elif isinstance(error, InvalidRequest | NotFound):
            self._requests.refused(request, error)
        elif isinstance(error, EngineBroke):
            member.pause()
            self._broke(request, error)
        elif kind.asks_another or kind is KEY_REFUSED or error.code in (NOT_BEGUN.codes or ()):
            logger.info("%s does not take a request: %s", member.url, error)
            member.pause()
            self._turned_down = error
            self._repeat(request)
            return
        else:
            request.failures += 1
            if request.failures < MAX_FAILURES:
                self._repeat(request, RETRY_SECONDS * request.failures)
            else:
                self._requests.refused(request, error)
        self._hopeful_at = time.monotonic()

    def _broke(self, request: Asked, error: EngineBroke) -> None:
        """Repeat a request during which an engine broke, the last time alone."""
        request.broken += 1
        if request.broken < MAX_BROKEN:
            self._repeat(request)
        elif request.broken == MAX_BROKEN:
            self._suspects.append(request)
        else:
            self._requests.refused(request, error)

    def _require_patience(self) -> None:
        """Raise Unavailable if requests have waited too long without any turn at an engine."""
        now = time.monotonic()
        if not self._again:
            self._hopeful_at = now
        elif not self._in_flight and now - self._hopeful_at > self._patience_seconds:
            raise Unavailable(self._turned_down.message, code="engine_unavailable")

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


async def _answer(request: Request, member: Member) -> Any:
    return await request.send(member.client)


async def _any_of(work: Sequence[Any], seconds: float) -> set[asyncio.Task[Any]]:
    """Wait until one is done, at most for some time; return those that are. The last is `woken`,
    a coroutine, which ends here."""
    woken = asyncio.create_task(work[-1])
    done, _ = await asyncio.wait(
        {*work[:-1], woken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    woken.cancel()
    return done
