"""Stores a chat completion whose request asks for it, once the answer has been sent.

The client never waits for it: the write follows the last byte, and a failure is only logged.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.background import BackgroundTask

from api.app_state import AppState
from api.auth.caller import Caller
from api.metadata import Metadata
from core.errors import InvalidRequest
from core.grading.validate import require_json
from core.inference.answer import Chunks, Events, collect
from core.inference.chat import chat_completion
from core.inference.plan import Plan
from core.inference.schemas import ChatBody
from core.records.stored_completions import store_completion
from core.spec.generation import AnswerEvent, ChoiceFinished

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
"""Of the messages and the answer as JSON; a larger completion is not stored."""
MAX_EVENTS = 100_000
"""Of a stream; a longer answer is not stored."""
REPEATED = ("temperature", "top_p", "seed", "max_completion_tokens", "tools", "response_format")
"""Fields of the request that the stored object repeats, if the request has them."""


METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)


class Recording:
    """The events of a stream that is to be stored."""

    def __init__(self) -> None:
        self._events: list[tuple[int, AnswerEvent]] = []
        self._count = 0
        self._call_ids: dict[tuple[int, int], str] = {}
        """Of tool calls, by the indexes of their choice and in it: chosen with the chunk."""

    async def of(self, events: Events) -> Events:
        """Yield the events, and keep them."""
        async with aclosing(events):
            async for item in events:
                self._count += 1
                if self._count <= MAX_EVENTS:
                    self._events.append(item)
                yield item

    async def sent(self, chunks: Chunks) -> Chunks:
        """Yield the chunks made of these events, and keep the ids of their calls."""
        async with aclosing(chunks):
            async for chunk in chunks:
                for choice in chunk["choices"]:
                    for call in choice["delta"].get("tool_calls", ()):
                        self._call_ids[choice["index"], call["index"]] = call["id"]
                yield chunk

    async def completion(self, plan: Plan) -> dict[str, Any] | None:
        """Return the object of the answer; None if it is too long, or has no end."""
        finished = sum(isinstance(event, ChoiceFinished) for _, event in self._events)
        if finished < plan.sampling.n or self._count > MAX_EVENTS:
            return None

        async def replayed() -> Events:
            for item in self._events:
                yield item

        completion = chat_completion(plan, await collect(replayed(), plan.requests))
        for choice in completion["choices"]:
            for index, call in enumerate(choice["message"].get("tool_calls", ())):
                call["id"] = self._call_ids.get((choice["index"], index), call["id"])
        return completion


def check_metadata(body: ChatBody) -> None:
    """Raise InvalidRequest for metadata that cannot be stored, before the model answers."""
    if not body.store or not body.metadata:
        return
    require_json(body.metadata, "metadata")
    try:
        METADATA.validate_python(body.metadata)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(["metadata", *map(str, first["loc"][:1])])
        raise InvalidRequest(
            f"Invalid value for {field[:128]!r}: {first['msg']}. A stored completion has at most "
            "16 pairs of metadata, keys of at most 64 characters and values of at most 512.",
            param=field[:128],
            code="invalid_value",
        ) from None


def storing(
    state: AppState, caller: Caller, body: ChatBody, completion: dict[str, Any]
) -> BackgroundTask | None:
    """Return the task that stores a completion after it is sent; None if it is not to be."""
    if not body.store:
        return None
    return BackgroundTask(_logged(_store), state, caller, body, completion)


def storing_stream(
    state: AppState, caller: Caller, body: ChatBody, plan: Plan, recording: Recording
) -> BackgroundTask:
    """Return the task that stores a streamed completion after its last chunk."""

    async def store() -> None:
        completion = await recording.completion(plan)
        if completion is not None:
            await asyncio.to_thread(_logged(_store), state, caller, body, completion)

    return BackgroundTask(store)


def _store(state: AppState, caller: Caller, body: ChatBody, completion: dict[str, Any]) -> None:
    request = body.model_dump(mode="json", exclude_none=True, include=set(REPEATED))
    stored = {**request, **completion}
    length = len(to_json(stored)) + len(to_json(body.messages))
    if length > MAX_BYTES:
        logger.info("%s has %d bytes and is not stored.", completion["id"], length)
        return
    with state.transaction() as transaction:
        store_completion(
            transaction.session,
            caller.project,
            stored,
            body.messages,
            body.metadata,
            bytes_=length,
            kept_seconds=state.settings.response_seconds,
        )


def _logged(action: Callable[..., None]) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception:
            logger.exception("A chat completion could not be stored.")

    return run
