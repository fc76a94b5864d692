"""Around every request: its number, its time, the answer to a crash, and the limit of its body."""

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import envelope, error_response
from core.errors import InvalidRequest, TooLarge
from core.records.ids import new_id

UPLOAD_PATH = "/v1/files"

logger = logging.getLogger(__name__)


class RequestMiddleware:
    """Puts `x-request-id` and `openai-processing-ms` on every answer, that to a crash included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = new_id("req")
        started = time.perf_counter()
        has_answered = False

        async def answer(message: Message) -> None:
            nonlocal has_answered
            if message["type"] == "http.response.start":
                has_answered = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round(1000 * (time.perf_counter() - started)))
            await send(message)

        try:
            if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
                nul = InvalidRequest("The URL holds a NUL character; no name of ours does.")
                await error_response(nul)(scope, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except Exception:
            logger.exception("Request %s %s %s failed", request_id, scope["method"], scope["path"])
            if has_answered:
                raise  # the server cuts the connection: an answer that just stops would look whole
            crash = envelope(
                500,
                f"The server failed. Its log names the request {request_id}.",
                code="internal_error",
            )
            await crash(scope, receive, answer)


class BodyLimitMiddleware:
    """Refuses large bodies, except uploads of files, which have a limit of their own."""

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
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise too_large
            return message

        await self.app(scope, receive_counted, send)
