"""A client that leaves once its request has arrived, however long that takes on a busy machine."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

TIMEOUT_SECONDS = 180.0


def leave_when(
    arrived: Callable[[], object], client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    """POST `body`, and close the connection as soon as `arrived` is true.

    AssertionError when the answer is complete before that, or after `TIMEOUT_SECONDS`.
    """
    asyncio.run(asyncio.wait_for(_leave_when(arrived, client, path, body), TIMEOUT_SECONDS))


async def _leave_when(
    arrived: Callable[[], object], client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    address = {"base_url": client.base_url, "headers": client.headers}
    async with httpx.AsyncClient(**address, timeout=TIMEOUT_SECONDS, trust_env=False) as leaver:
        request = asyncio.create_task(leaver.post(path, json=body))
        while not arrived():
            assert not request.done(), f"answered too early: {request}"
            await asyncio.sleep(0.02)
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
