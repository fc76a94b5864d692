"""Asking a model as 1, 8 and 32 people at once would, and taking the time."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from statistics import median

from api.app_state import Engines
from api.generation.run import run
from api.models.service import Target
from core.errors import Unavailable
from core.records.ids import new_id
from core.spec.generation import (
    ChoiceFinished,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
    TokenPrompt,
)
from core.spec.speed import FirstTokenSeconds, SpeedLevel, SpeedResult

LEVELS = (1, 8, 32)
PROMPT_TOKENS = 64
COMPLETION_TOKENS = 32

TOKEN_IDS = range(256)
"""Every vocabulary has these; what they mean changes no time."""

LIMIT_SECONDS = 300.0
"""For all levels together; loading the model comes before."""


async def measure(
    engines: Engines, target: Target, project: str, limit_seconds: float = LIMIT_SECONDS
) -> SpeedResult:
    """Return what the engine manages; its refusals pass through.

    Unavailable `speed_test_timed_out` when not even one request is answered in time.
    """
    hardware = await _warm_up(engines, target, project)
    levels: list[SpeedLevel] = []
    try:
        async with asyncio.timeout(limit_seconds):
            for requests in LEVELS:
                levels.append(await _level(engines, _requests(target, project, requests)))
    except TimeoutError:
        if not levels:
            raise Unavailable(
                f"The model wrote less than {COMPLETION_TOKENS} tokens in {limit_seconds:.0f} "
                "seconds, so there is no speed to tell. Try again when the engine has less to do.",
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


async def _warm_up(engines: Engines, target: Target, project: str) -> str:
    """Have the model loaded; return what the engine says of its hardware."""
    hardware = ""
    async with aclosing(run(engines, _requests(target, project, 1))) as events:
        async for _, event in events:
            if isinstance(event, GenerationStarted):
                hardware = event.hardware
    return hardware


async def _level(engines: Engines, requests: Sequence[GenerationRequest]) -> SpeedLevel:
    first_token_seconds: list[float] = []
    completion_tokens = 0
    began = time.perf_counter()
    async with aclosing(run(engines, requests)) as events:
        async for _, event in events:
            match event:
                case GenerationStarted():
                    first_token_seconds.append(time.perf_counter() - began)
                case ChoiceFinished():
                    completion_tokens += event.completion_tokens
    seconds = time.perf_counter() - began
    return SpeedLevel(
        requests=len(requests),
        first_token_seconds=FirstTokenSeconds(
            median=median(first_token_seconds), max=max(first_token_seconds)
        ),
        tokens_per_second=completion_tokens / seconds,
    )


def _requests(target: Target, project: str, count: int) -> list[GenerationRequest]:
    """Prompts that nobody has asked before, so that no cache knows how they begin."""
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
