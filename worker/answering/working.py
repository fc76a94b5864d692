"""Works through the rows of a task, many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from worker.answering.journal import Journal, Result

AT_ONCE = 256
"""Rows that are answered or graded; the engines and endpoints limit the requests among them."""
CHECK_SECONDS = 0.05
"""Between two looks whether results are to be stored."""
MAX_WAITING = 1000
"""Results that are not stored yet; rows that need no model are graded faster than stored."""

Row = tuple[int, Mapping[str, Any]]


async def work_through(
    rows: Iterator[Row],
    result_of: Callable[[int, Mapping[str, Any]], Awaitable[Result]],
    journal: Journal[Result],
) -> None:
    """Make a result of every row, and add it to the journal, which is stored from time to time."""

    async def work() -> None:
        for number, row in rows:
            journal.add(await result_of(number, row))
            await asyncio.sleep(0)  # a result without a request never waits
            while journal.waiting >= MAX_WAITING:
                await asyncio.sleep(CHECK_SECONDS)

    workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
    pending = set(workers)
    try:
        while pending:
            done, _ = await asyncio.wait(
                pending, timeout=CHECK_SECONDS, return_when=asyncio.FIRST_EXCEPTION
            )
            for each in done:
                each.result()  # raises its failure
            pending -= done
            if journal.is_due:
                await asyncio.to_thread(journal.taken())
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
