"""Work that is done once for all who ask for it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass
class _Run(Generic[Result]):
    task: asyncio.Task[Result]
    waiting: int = 0


class SharedRuns(Generic[Result]):
    """The runs under way in this process, by what they are for."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, _Run[Result]] = {}

    async def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of the run for `key`, started unless one is under way.

        It goes on as long as anybody waits for it; the last one to leave stops it.
        """
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(asyncio.create_task(start()))
        run.waiting += 1
        try:
            return await asyncio.shield(run.task)
        finally:
            run.waiting -= 1
            if run.waiting == 0:
                del self._runs[key]
                run.task.cancel()
                await asyncio.gather(run.task, return_exceptions=True)
