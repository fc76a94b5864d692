"""Requests of coroutines to engines: each awaits its answer, and the dispatch does the rest."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr

from core.errors import StaleClaim, TunesmithError
from core.inference.endpoints import Engine
from core.inference.targets import Target
from core.records.database import Database
from worker.answering.dispatch import Dispatch, Look, Request
from worker.answering.fleet import Fleet, connect_with
from worker.answering.look import look_at

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Background:
    """Engines for any number of coroutines at once, which ask inside `during`."""

    def __init__(self, fleet: Fleet, look: Look, patience_seconds: float = math.inf) -> None:
        self._waiting = _Waiting()
        self._dispatch = Dispatch(self._waiting, fleet, look, patience_seconds)

    async def during(self, work: Awaitable[Result]) -> Result:
        """Send requests until `work` ends, and return its result. May be called once.

        Raises Unavailable, and cancels `work`, if no engine takes any request of it for
        `patience_seconds`.
        """
        working = asyncio.ensure_future(work)
        sending = asyncio.create_task(self._dispatch.run())
        try:
            await asyncio.wait({working, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                sending.result()  # it has no end of its own, except an error
            return await working
        finally:
            working.cancel()
            sending.cancel()
            await asyncio.gather(working, sending, return_exceptions=True)

    async def ask(self, target: Target, send: Callable[[Engine], Awaitable[Answer]]) -> Answer:
        """Return what `send` returns, which gets the engine that is asked.

        Waits while no engine takes the request, and sends it again where another engine or a later
        moment may help. Raises the error that `send` raises if nothing will: this is final. A
        request during which engines break or fail is given up after three.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        async def sent(engine: Engine) -> Answer | None:
            try:
                return await send(engine)
            except Exception as error:
                if _is_of_an_engine(error):
                    raise
                if not answer.done():
                    answer.set_exception(error)
                return None

        self._waiting.add(_Awaited(target=target, send=sent, answer=answer))
        self._dispatch.wake()
        return await answer


def background_of(
    database: Database, key: SecretStr | None, patience_seconds: float = math.inf
) -> Background:
    """Return the engines that are alive in the database. Their key is `key`."""
    return Background(Fleet(connect_with(key)), look_at(database), patience_seconds)


def _is_of_an_engine(error: Exception) -> bool:
    """Return whether another engine may help; not so if the caller has lost its task."""
    return isinstance(error, TunesmithError) and not isinstance(error, StaleClaim)


@dataclass(eq=False, kw_only=True)
class _Awaited(Request):
    """A request of which a coroutine awaits the answer."""

    answer: asyncio.Future[Any]


class _Waiting:
    """The requests that wait to be sent."""

    is_open = True

    def __init__(self) -> None:
        self._requests: deque[_Awaited] = deque()

    def add(self, request: _Awaited) -> None:
        self._requests.append(request)

    def take(self) -> _Awaited | None:
        while self._requests:
            request = self._requests.popleft()
            if not request.answer.done():  # its asker may be gone
                return request
        return None

    def answered(self, request: _Awaited, answer: Any) -> None:
        if not request.answer.done():
            request.answer.set_result(answer)

    def refused(self, request: _Awaited, error: TunesmithError) -> None:
        if not request.answer.done():
            request.answer.set_exception(error)

    async def store(self) -> None:
        """Answers are stored by those who await them."""
