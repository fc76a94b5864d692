"""Hundreds of streams at once: none is lost, none is mixed up with another, whatever the queue."""

import asyncio
from pathlib import Path

import openai

from tests.end_to_end.service import BASE_MODEL, running_service

STREAMS = 500
DISTINCT = 25
ROOM = {
    "TUNESMITH_ENGINE_MAX_BATCH": "512",
    "TUNESMITH_ENGINE_MAX_WAITING": "1024",
    "TUNESMITH_ENGINE_PRECISION": "fp32",
}


async def stream(client: openai.AsyncOpenAI, number: int) -> tuple[str, str | None]:
    """Return the text of a request and how it ended."""
    text, reason = "", None
    answer = await client.chat.completions.create(
        model=BASE_MODEL,
        messages=[{"role": "user", "content": f"Question {number}: what is a string?"}],
        max_tokens=12,
        seed=number,
        stream=True,
    )
    async for chunk in answer:
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    return text, reason


async def ask_all(url: str, retries: int) -> tuple[list, list]:
    """Ask each distinct request alone, then all streams at once."""
    settings = {"base_url": f"{url}/v1", "api_key": "none", "timeout": 280, "max_retries": retries}
    async with openai.AsyncOpenAI(**settings) as client:
        alone = [await stream(client, number) for number in range(DISTINCT)]
        tasks = (stream(client, number % DISTINCT) for number in range(STREAMS))
        return alone, await asyncio.gather(*tasks, return_exceptions=True)


def test_five_hundred_streams_say_what_each_says_alone(tmp_path: Path) -> None:
    with running_service(tmp_path, ROOM) as service:
        alone, together = asyncio.run(ask_all(service.url, retries=0))
    assert len(set(alone)) > DISTINCT // 2, "the requests are too alike to tell them apart"
    assert all(reason in ("stop", "length") for _, reason in alone)
    different = [
        (number, answer, alone[number % DISTINCT])
        for number, answer in enumerate(together)
        if answer != alone[number % DISTINCT]
    ]
    assert different == []


def test_beyond_the_queue_is_a_429_that_the_stock_client_comes_back_from(tmp_path: Path) -> None:
    small = {"TUNESMITH_ENGINE_MAX_BATCH": "16", "TUNESMITH_ENGINE_MAX_WAITING": "16"}
    with running_service(tmp_path, small) as service:
        _, impatient = asyncio.run(ask_all(service.url, retries=0))
        refused = [each for each in impatient if isinstance(each, BaseException)]
        assert refused, "the queue was never full"
        for error in refused:
            assert isinstance(error, openai.RateLimitError)
            assert error.code == "rate_limit_exceeded"
            assert int(error.response.headers["retry-after"]) > 0
        _, patient = asyncio.run(ask_all(service.url, retries=100))
    assert [each for each in patient if isinstance(each, BaseException)] == []
