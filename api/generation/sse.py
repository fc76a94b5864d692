"""Streams chunks as server-sent events in OpenAI's format."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.responses import StreamingResponse

from core.errors import TunesmithError
from core.inference.answer import Chunks
from core.inference.error_bodies import error_body

logger = logging.getLogger(__name__)


def sse_response(chunks: Chunks) -> StreamingResponse:
    """Return a response that streams the chunks and ends with `[DONE]`.

    The status is sent with the first byte; a later error is an event, which OpenAI's clients raise
    as an APIError.
    """
    return StreamingResponse(
        _events(chunks), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _events(chunks: Chunks) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield _event(chunk)
        yield b"data: [DONE]\n\n"
    except TunesmithError as error:
        logger.warning("A stream ended with an error: %s", error.message)
        yield _event(error_body(500, error.message, param=error.param, code=error.code))


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + to_json(body) + b"\n\n"
