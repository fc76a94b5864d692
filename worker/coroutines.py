"""Runs coroutines from a thread of a worker, which may have to stop or may lose its claim."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

CHECK_SECONDS = 0.1

Result = TypeVar("Result")


class Interrupted(Exception):
    """The work was interrupted: the worker is stopping, or has lost the claim."""


def run_unless(should_stop: Callable[[], bool], work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` in its own event loop. Raises Interrupted soon after `should_stop` is true."""
    return asyncio.run(_unless(should_stop, work))


async def _unless(should_stop: Callable[[], bool], work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.ensure_future(work)
    while not task.done():
        if should_stop():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise Interrupted
        await asyncio.wait({task}, timeout=CHECK_SECONDS)
    return task.result()


async def wait_for_all(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return all results. The first failure cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
