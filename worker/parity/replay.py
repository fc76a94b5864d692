"""Replays the rows of a parity reference through an engine: all at once, as users' requests.

The worker may have to stop meanwhile, so the caller can interrupt a replay.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
from core.spec.engine_calls import CLASSIFY
from core.spec.engine_protocol import kind_of
from core.spec.parity import ParityReference, ReplayedRow, ReplayedText
from worker.coroutines import run_unless, wait_for_all
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress

UNAVAILABLE_SECONDS = 60.0
"""The time to retry while the engine is unavailable or full."""
PAUSE_SECONDS = 1.0
REPLAY_SECONDS = 900.0
"""For all rows, since the engine may have to load a large base first, after other requests."""

Result = TypeVar("Result")


def replay(
    engine: EngineAddress,
    reference: ParityReference,
    candidate: Candidate,
    should_stop: Callable[[], bool],
) -> Replies:
    """Return a reply for every row of the reference.

    Raises a lasting refusal of the engine at once, and any other `TunesmithError` after a bounded
    time; pydantic's ValidationError for a response that cannot be parsed; Interrupted soon after
    `should_stop` is true.
    """
    return run_unless(should_stop, _replay(engine, reference, candidate))


async def _replay(
    engine: EngineAddress, reference: ParityReference, candidate: Candidate
) -> Replies:
    async with OneEngineClient(engine) as client:

        async def ask(row: ReplayedRow | ReplayedText) -> Reply:
            if isinstance(row, ReplayedText):
                return await _until_answered(lambda: _labelled(client, row, candidate))
            return await _until_answered(lambda: _written(client, row, candidate))

        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                rows = await wait_for_all([ask(row) for row in reference.rows])
                return Replies(tuple(rows))
        except TimeoutError:
            raise Unavailable(
                f"it did not answer within {REPLAY_SECONDS:.0f} s", code="engine_unavailable"
            ) from None


async def _written(client: OneEngineClient, row: ReplayedRow, candidate: Candidate) -> Reply:
    return written_reply(row, await client.generate(generation_request(row, candidate)))


async def _labelled(client: OneEngineClient, row: ReplayedText, candidate: Candidate) -> Reply:
    asked = classification_request(row, candidate)
    return labelled_reply(row, await client.ask(CLASSIFY, asked))


async def _until_answered(ask: Callable[[], Awaitable[Result]]) -> Result:
    """Retry until the engine answers. A temporary refusal is raised after UNAVAILABLE_SECONDS."""
    give_up_at = time.monotonic() + UNAVAILABLE_SECONDS
    while True:
        try:
            return await ask()
        except TunesmithError as error:
            is_too_late = time.monotonic() + PAUSE_SECONDS > give_up_at
            if kind_of(error).is_lasting or is_too_late:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
