"""Asks the engine for the rows of a parity reference, all at once and as users would.

The worker's own duties go on meanwhile: whoever replays says when to leave off.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from core.spec.classification import ClassificationRequest
from core.spec.generation import GenerationDelta, GenerationRequest, GenerationStarted, SamplingSpec
from core.spec.parity import NumberFormat, ParityReference, ReplayedRow, ReplayedText, nats
from core.spec.run import BaseModelSpec, BundleRef
from worker.engine_client import EngineAway, EngineClient, EngineRefused
from worker.engines import EngineAddress

AWAY_SECONDS = 60.0
"""How long an engine that is away or full is asked again."""
PAUSE_SECONDS = 1.0
REPLAY_SECONDS = 900.0
"""For everything: the engine may have to load a large base first, for which others wait."""
CHECK_SECONDS = 0.1

Result = TypeVar("Result")


class Interrupted(Exception):
    """The worker has to leave off: it stops, or has lost the job."""


@dataclass(frozen=True)
class Candidate:
    """A model that is to be published."""

    base: BaseModelSpec
    bundle: BundleRef
    project: str


@dataclass(frozen=True)
class Reply:
    """What the engine says of a row: the prompt as it reads it, and figures in nats."""

    prompt_ids: tuple[int, ...]
    figures: tuple[float, ...]
    """For each that the reference has; empty when the prompt was read otherwise."""


@dataclass(frozen=True)
class Replies:
    engine_precision: NumberFormat | None
    rows: tuple[Reply, ...]


def replay(
    engine: EngineAddress,
    reference: ParityReference,
    candidate: Candidate,
    leave_off: Callable[[], bool],
) -> Replies:
    """Return a reply for every row of the reference.

    Raises EngineAway after a bounded time, EngineRefused, pydantic's ValidationError for an answer
    that cannot be read, and Interrupted within a moment once `leave_off` is true.
    """
    return asyncio.run(_unless(leave_off, _replay(engine, reference, candidate)))


async def _replay(
    engine: EngineAddress, reference: ParityReference, candidate: Candidate
) -> Replies:
    async with EngineClient(engine) as client:

        async def ask(row: ReplayedRow | ReplayedText) -> Reply:
            if isinstance(row, ReplayedText):
                return await _patiently(lambda: _labelled(client, row, candidate))
            return await _patiently(lambda: _written(client, row, candidate))

        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                rows = await _all([ask(row) for row in reference.rows])
                return Replies(await _patiently(client.precision), tuple(rows))
        except TimeoutError:
            raise EngineAway(f"it did not answer within {REPLAY_SECONDS:.0f} s") from None


async def _written(client: EngineClient, row: ReplayedRow, candidate: Candidate) -> Reply:
    of_prompt = row.logprobs[: len(row.prompt_ids)]
    request = GenerationRequest(
        id=f"parity-{row.line}",
        base=candidate.base,
        adapter=candidate.bundle,
        prompt=row.prompt,
        sampling=SamplingSpec(
            temperature=0,
            seed=0,
            top_logprobs=0,
            given_answer=row.answer,
            score_prompt=any(logprob is not None for logprob in of_prompt),
        ),
        project=candidate.project,
    )
    events = await client.generate(request)
    started = next((each for each in events if isinstance(each, GenerationStarted)), None)
    written = [
        token.logprob
        for each in events
        if isinstance(each, GenerationDelta)
        for token in each.logprobs
    ]
    if started is None or len(written) != len(row.answer):
        raise EngineAway("its answer ended too early")
    if started.prompt_ids != row.prompt_ids:
        return Reply(started.prompt_ids, ())
    read = [token.logprob for token in started.prompt] or [None] * len(row.prompt_ids)
    pairs = list(zip([*read, *written], row.logprobs, strict=True))
    figures = [found for found, wanted in pairs if found is not None and wanted is not None]
    if len(figures) != sum(wanted is not None for _, wanted in pairs):
        raise EngineRefused("it does not say how likely the prompt is")
    return Reply(started.prompt_ids, tuple(figures))


async def _labelled(client: EngineClient, row: ReplayedText, candidate: Candidate) -> Reply:
    request = ClassificationRequest(
        id=f"parity-{row.line}",
        base=candidate.base,
        adapter=candidate.bundle,
        texts=(row.text,),
        project=candidate.project,
    )
    (scores,) = (await client.classify(request)).scores
    if scores.keys() != row.logprobs.keys():
        raise EngineRefused(f"it knows the labels {', '.join(scores)}", "other_labels")
    return Reply((), tuple(nats(scores[label]) for label in row.logprobs))


async def _patiently(ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask until the engine answers; EngineAway when it has not for AWAY_SECONDS."""
    give_up_at = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return await ask()
        except EngineAway:
            if time.monotonic() + PAUSE_SECONDS > give_up_at:
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
