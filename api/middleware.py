"""Around every request: its number, its time, its line in the log, the answer to a crash, and the
limit of its body."""

import asyncio
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import envelope, error_response
from api.request_log import RequestRecord
from core.errors import InvalidRequest, TooLarge
from core.records.ids import new_id

UPLOAD_PATH = "/v1/files"

logger = logging.getLogger(__name__)


class HeadMiddleware:
    """Answers `HEAD` as `GET`, without the body. A stream ends when it has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        has_ended = False

        async def receive_until_answered() -> Message:
            return {"type": "http.disconnect"} if has_ended else await receive()

        async def send_head(message: Message) -> None:
            nonlocal has_ended
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                has_ended = True

        await self.app({**scope, "method": "GET"}, receive_until_answered, send_head)


class RequestMiddleware:
    """Puts `x-request-id` and `openai-processing-ms` on every answer, that to a crash included.

    Logs each request at its end, that of a stream when the stream ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = RequestRecord(scope, new_id("req"))
        has_failed = False

        async def receive_recorded() -> Message:
            message = await receive()
            record.received(message)
            return message

        async def answer(message: Message) -> None:
            record.sent(message)
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.request_id
                headers["openai-processing-ms"] = str(record.milliseconds)
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            if (refused := _malformed(scope)) is not None:
                await error_response(refused)(scope, receive, answer)
            else:
                await self.app(scope, receive_recorded, answer)
        except Exception:
            has_failed = True
            number = record.request_id
            logger.exception("Request %s %s %s failed", number, scope["method"], scope["path"])
            if record.status is not None:
                raise  # the server cuts the connection: an answer that just stops would look whole
            crash = envelope(
                500,
                f"The server failed. Its log names the request {number}.",
                code="internal_error",
            )
            await crash(scope, receive, answer)
        finally:
            record.write(has_failed=has_failed)


def _malformed(scope: Scope) -> InvalidRequest | None:
    """Return what is wrong with the first lines of a request, which servers read differently."""
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        return InvalidRequest("The URL holds a NUL character; no name of ours does.")
    if sum(name == b"host" for name, _ in scope["headers"]) > 1:
        return InvalidRequest("The request has several Host headers; send one.")
    return None


BODY_SECONDS = 60.0
"""The longest wait for the next bytes of a body."""


class BodyLimitMiddleware:
    """Refuses large and stalled bodies, except uploads of files, which have their own limits."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == UPLOAD_PATH:
            await self.app(scope, receive, send)
            return
        too_large = TooLarge(f"The body of this request may have {self.max_bytes} bytes at most.")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self.max_bytes:
            await error_response(too_large)(scope, receive, send)
            return
        received, is_complete = 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_complete
            if is_complete:  # what follows is the end of the connection, which may be far
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_SECONDS)
            except TimeoutError:
                raise InvalidRequest(
                    f"The client sent no data for {BODY_SECONDS:g} seconds.", code="body_stalled"
                ) from None
            is_complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise too_large
            return message

        await self.app(scope, receive_counted, send)
