"""Requests that are sent again because their answer was lost: they make nothing twice.

A client marks a repeated request with `Idempotency-Key`, or, as OpenAI's clients do by themselves,
with the number of earlier tries. The answer is stored in the transaction that makes the object, and
a repetition is answered with the same bytes.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive

from api.app_state import AppState
from api.auth.caller import Caller, Repeat, attach_caller
from api.json_body import Handler, JsonRoute
from core.errors import InvalidRequest
from core.records import remembered
from core.records.remembered import AlreadyAnswered, find_answer
from core.spec.repeatable import Repeatable

KEY = "idempotency-key"
TRIES = "x-stainless-retry-count"
"""Sent by OpenAI's clients: 0, or more for a request that they repeat."""

REPLAYED = "idempotent-replayed"
"""The header of an answer that was given before."""

LONGEST_KEY = 255

Answer = TypeVar("Answer", bound=BaseModel)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Running:
    """The requests of this process that are not answered yet."""

    _ends: dict[str, set[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(set))

    @asynccontextmanager
    async def turn(self, request: Repeatable) -> AsyncIterator[None]:
        """Let a repetition wait for the end of the requests that it repeats."""
        name = request.key or request.fingerprint
        while (request.key or request.tries) and self._ends[name]:
            await asyncio.wait(self._ends[name])
        end = asyncio.get_running_loop().create_future()
        self._ends[name].add(end)
        try:
            yield
        finally:
            end.set_result(None)
            self._ends[name].discard(end)
            if not self._ends[name]:
                del self._ends[name]


def remember(
    session: Session, caller: Caller, answer: Answer, content: Sequence[str] | None = None
) -> Answer:
    """Store and return the answer to the request of a caller who may repeat it.

    `content` identifies the request if its body does not. AlreadyAnswered if the request has been
    answered in the meantime: the transaction must not commit.
    """
    repeat = caller.repeat
    if repeat is not None:
        if content is not None:
            repeat.request = repeat.request._replace(fingerprint=_fingerprint(*content))
        text = answer.model_dump_json(by_alias=True)
        remembered.remember(session, caller.project, repeat.request, text)
        repeat.answer = text
    return answer


class MakingRoute(JsonRoute):
    """A route of a router whose POST routes make something and `remember` the answer."""

    def get_route_handler(self) -> Handler:
        handle: Handler = super().get_route_handler()
        status = self.status_code or 200

        async def handle_repeat(request: Request) -> Response:
            caller = with_repeat(request) if request.method == "POST" else None
            if caller is None or caller.repeat is None:
                return await handle(request)
            body = await request.body()
            asked = caller.repeat.request = caller.repeat.request._replace(
                fingerprint=_fingerprint_of(request, body)
            )
            running: Running = request.app.state.running
            async with running.turn(asked):
                if (known := await _known_answer(request, asked, status)) is not None:
                    return known
                again = Request(request.scope, _again(request, body))
                return await once(request, caller, partial(handle, again), status)

        return handle_repeat


async def once(
    request: Request,
    caller: Caller,
    make: Callable[[], Awaitable[Made]],
    status: int = 200,
) -> Made | Response:
    """Return what `make` returns, or the answer that it remembers, or the one of an earlier try."""
    repeat = caller.repeat
    if repeat is None:
        return await make()
    try:
        made = await make()
    except AlreadyAnswered:
        known = await _known_answer(request, repeat.request, status)
        assert known is not None
        return known
    return made if repeat.answer is None else _json(repeat.answer, status)


def with_repeat(request: Request) -> Caller:
    """Return and attach the caller, with the marks of a request that may be repeated.

    InvalidRequest `invalid_idempotency_key` for a key that is empty or too long.
    """
    caller: Caller = request.state.caller
    if (asked := _marks_of(request.headers)) is not None:
        caller = replace(caller, repeat=Repeat(asked))
        attach_caller(request.scope, caller)
    return caller


def _marks_of(headers: Headers) -> Repeatable | None:
    """Return how a request says that it may be repeated; None if it does not."""
    key, tries = headers.get(KEY), headers.get(TRIES, "")
    if key is not None and not (key.isprintable() and 1 <= len(key) <= LONGEST_KEY):
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {LONGEST_KEY} printable characters.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    if key is None and not tries.isdecimal():
        return None
    return Repeatable(key, int(tries[:9]) if tries.isdecimal() else 0, fingerprint="")


async def _known_answer(request: Request, asked: Repeatable, status: int = 200) -> Response | None:
    """Return the answer that a request of this caller had before."""
    state: AppState = request.app.state.tunesmith
    project = request.state.caller.project

    def find() -> str | None:
        with state.database.reading() as session:
            return find_answer(session, project, asked)

    known = await run_in_threadpool(find)
    if known is None:
        return None
    answer = _json(known, status)
    answer.headers[REPLAYED] = "true"
    return answer


def _json(body: str, status: int) -> Response:
    return Response(body, status, media_type="application/json")


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _fingerprint_of(request: Request, body: bytes) -> str:
    url = request.url
    return _fingerprint(request.method, url.path, url.query, hashlib.sha256(body).hexdigest())


def _again(request: Request, body: bytes) -> Receive:
    """Return what gives the body to a second reader, then what comes after it."""
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            return await request.receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
