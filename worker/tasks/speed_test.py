"""Measures the speed of a model: 1, 8 and 32 concurrent requests to one engine."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from statistics import median
from typing import assert_never

from core.errors import TunesmithError, Unavailable
from core.records.ids import new_id
from core.spec.engine_protocol import may_ask_another, turned_down
from core.spec.generation import (
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
    TokenPrompt,
    ToolCalled,
)
from core.spec.speed import FirstTokenSeconds, SpeedLevel, SpeedResult, SpeedTarget
from worker.coroutines import run_unless, wait_for_all
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress, engines_for
from worker.tasks.attempt import Attempt

LEVELS = (1, 8, 32)
PROMPT_TOKENS = 64
COMPLETION_TOKENS = 32

TOKEN_IDS = range(256)
"""Ids in every vocabulary; which tokens they are does not affect the speed."""

LIMIT_SECONDS = 300.0
"""For all levels together, after the model has been loaded."""


def run(attempt: Attempt) -> SpeedResult:
    """Measure the model on one engine; raises what `measure_on_any` raises."""
    target = SpeedTarget.model_validate(attempt.payload)
    key = attempt.settings.engine_key
    engines = engines_for(attempt.database, target.base, target.adapter, key)
    return run_unless(
        attempt.should_stop, measure_on_any(engines, target, attempt.claim.project_id)
    )


async def measure_on_any(
    engines: Sequence[EngineAddress], target: SpeedTarget, project: str
) -> SpeedResult:
    """Measure on the first engine that accepts the requests; try others as the API's router does.

    Raises the failure after which no other engine may be asked, or why no engine accepted them.
    """
    failures: list[TunesmithError] = []
    for engine in engines:
        async with OneEngineClient(engine) as client:
            try:
                hardware = await _warm_up(client, target, project)
                return await measure(client, target, project, hardware)
            except TunesmithError as error:
                failures.append(error)
                if not may_ask_another(failures):
                    raise
    raise turned_down(failures)


async def measure(
    client: OneEngineClient,
    target: SpeedTarget,
    project: str,
    hardware: str,
    limit_seconds: float = LIMIT_SECONDS,
) -> SpeedResult:
    """Return the speed of the levels that end within `limit_seconds`.

    Raises the client's errors, and Unavailable `speed_test_timed_out` if no level ends in time.
    """
    levels: list[SpeedLevel] = []
    try:
        async with asyncio.timeout(limit_seconds):
            for requests in LEVELS:
                levels.append(await _level(client, _requests(target, project, requests)))
    except TimeoutError:
        if not levels:
            raise Unavailable(
                f"The model generated fewer than {COMPLETION_TOKENS} tokens in "
                f"{limit_seconds:.0f} s, so its speed is unknown. Try again when the engine is "
                "less busy.",
                code="speed_test_timed_out",
                retry_after_seconds=60,
            ) from None
    return SpeedResult(
        hardware=hardware,
        prompt_tokens=PROMPT_TOKENS,
        completion_tokens=COMPLETION_TOKENS,
        levels=tuple(levels),
        is_complete=len(levels) == len(LEVELS),
    )


async def _warm_up(client: OneEngineClient, target: SpeedTarget, project: str) -> str:
    """Have the engine load the model; return the hardware that it reports."""
    hardware = ""
    for request in _requests(target, project, 1):
        async for event in client.events(request):
            if isinstance(event, GenerationStarted):
                hardware = event.hardware
    return hardware


async def _level(client: OneEngineClient, requests: Sequence[GenerationRequest]) -> SpeedLevel:
    """Send all requests at once and measure; the first failure cancels the others."""
    began = time.perf_counter()
    answers = await wait_for_all([_answer(client, each, began) for each in requests])
    seconds = time.perf_counter() - began
    first_token_seconds = [first for first, _ in answers]
    completion_tokens = sum(tokens for _, tokens in answers)
    return SpeedLevel(
        requests=len(requests),
        first_token_seconds=FirstTokenSeconds(
            median=median(first_token_seconds), max=max(first_token_seconds)
        ),
        tokens_per_second=completion_tokens / seconds,
    )


async def _answer(
    client: OneEngineClient, request: GenerationRequest, began: float
) -> tuple[float, int]:
    """Return the seconds until the first token, and the number of generated tokens."""
    first_token_seconds, completion_tokens = 0.0, 0
    async for event in client.events(request):
        match event:
            case GenerationStarted():
                first_token_seconds = time.perf_counter() - began
            case ChoiceFinished():
                completion_tokens += event.completion_tokens
            case GenerationDelta() | ToolCalled():
                pass
            case _:
                assert_never(event)
    return first_token_seconds, completion_tokens


def _requests(target: SpeedTarget, project: str, count: int) -> list[GenerationRequest]:
    """Return requests with new random prompts, so that no prefix of them is cached."""
    noise = random.Random(secrets.randbits(64))
    id_ = new_id("speed")
    return [
        GenerationRequest(
            id=f"{id_}-{index}",
            base=target.base,
            adapter=target.adapter,
            serving=target.serving,
            prompt=TokenPrompt(tokens=tuple(noise.choices(TOKEN_IDS, k=PROMPT_TOKENS))),
            sampling=SamplingSpec(
                max_tokens=COMPLETION_TOKENS, temperature=0, seed=0, ignore_eos=True
            ),
            project=project,
        )
        for index in range(count)
    ]
