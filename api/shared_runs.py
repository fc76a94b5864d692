"""Shares the result of a run among concurrent callers."""

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
    """The current runs in this process, by key."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, _Run[Result]] = {}

    async def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of the run for `key`; start it if there is none.

        The run is cancelled when no caller is left.
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
