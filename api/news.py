"""Lets many streams wait for something new with one query for all of them."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

POLL_SECONDS = 0.2

Id = TypeVar("Id", bound=str)

logger = logging.getLogger(__name__)


class News(Generic[Id]):
    """Waits for objects whose position rises, such as the number of their last event.

    A thousand streams that poll for themselves occupy the database and all threads.
    """

    def __init__(self, positions: Callable[[Sequence[Id]], Mapping[Id, float]]) -> None:
        """`positions` returns the positions of the objects that exist; it runs in a thread."""
        self._positions = positions
        self._waiting: dict[Id, set[tuple[float, asyncio.Future[None]]]] = {}
        self._polling: asyncio.Task[None] | None = None

    async def wait(self, id_: Id, after: float, seconds: float) -> bool:
        """Wait until the position is above `after`; False if that takes longer than `seconds`.

        True also if the object is gone, or if nobody can say: the caller has to look.
        """
        found = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id_, set()).add((after, found))
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            await asyncio.wait_for(found, seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting[id_].discard((after, found))
            if not self._waiting[id_]:
                del self._waiting[id_]
        return True

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_SECONDS)
            asked = list(self._waiting)
            try:
                positions = await run_in_threadpool(self._positions, asked)
            except Exception:  # those who wait meet it too, and answer for themselves
                logger.exception("What streams wait for cannot be read")
                positions = {}
            for id_ in asked:
                position = positions.get(id_, float("inf"))
                for after, found in self._waiting.get(id_, ()):
                    if position > after and not found.done():
                        found.set_result(None)
