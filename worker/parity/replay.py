"""Asks the engine for the rows of a parity reference, all at once and as users would.

The worker's own duties go on meanwhile: whoever replays says when to leave off.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from core.errors import TunesmithError, Unavailable
from core.parity.asking import (
    Candidate,
    Replies,
    Reply,
    classification_request,
    generation_request,
    labelled_reply,
    written_reply,
)
from core.spec.engine_protocol import kind_of
from core.spec.parity import ParityReference, ReplayedRow, ReplayedText
from worker.parity.engine_client import EngineClient
from worker.parity.engines import EngineAddress

AWAY_SECONDS = 60.0
"""How long an engine that is away or full is asked again."""
PAUSE_SECONDS = 1.0
REPLAY_SECONDS = 900.0
"""For everything: the engine may have to load a large base first, for which others wait."""
CHECK_SECONDS = 0.1

Result = TypeVar("Result")


class Interrupted(Exception):
    """The worker has to leave off: it stops, or has lost the job."""


def replay(
    engine: EngineAddress,
    reference: ParityReference,
    candidate: Candidate,
    leave_off: Callable[[], bool],
) -> Replies:
    """Return a reply for every row of the reference.

    Raises a lasting refusal of the engine at once and any other `TunesmithError` after a bounded
    time; pydantic's ValidationError for an answer that cannot be read; and Interrupted within a
    moment once `leave_off` is true.
    """
    return asyncio.run(_unless(leave_off, _replay(engine, reference, candidate)))


async def _replay(
    engine: EngineAddress, reference: ParityReference, candidate: Candidate
) -> Replies:
    async with EngineClient(engine) as client:

        async def ask(row: ReplayedRow | ReplayedText) -> Reply:
            if isinstance(row, ReplayedText):
                return await _until_answered(lambda: _labelled(client, row, candidate))
            return await _until_answered(lambda: _written(client, row, candidate))

        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                rows = await _all([ask(row) for row in reference.rows])
                return Replies(tuple(rows))
        except TimeoutError:
            raise Unavailable(
                f"it did not answer within {REPLAY_SECONDS:.0f} s", code="engine_unavailable"
            ) from None


async def _written(client: EngineClient, row: ReplayedRow, candidate: Candidate) -> Reply:
    return written_reply(row, await client.generate(generation_request(row, candidate)))


async def _labelled(client: EngineClient, row: ReplayedText, candidate: Candidate) -> Reply:
    return labelled_reply(row, await client.classify(classification_request(row, candidate)))


async def _until_answered(ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask until the engine answers; raise a passing refusal after AWAY_SECONDS of them."""
    give_up_at = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return await ask()
        except TunesmithError as error:
            is_too_late = time.monotonic() + PAUSE_SECONDS > give_up_at
            if kind_of(error).is_lasting or is_too_late:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


async def _all(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Wait for all results; the first failure ends the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _unless(leave_off: Callable[[], bool], work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.ensure_future(work)
    while not task.done():
        if leave_off():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise Interrupted
        await asyncio.wait({task}, timeout=CHECK_SECONDS)
    return task.result()
