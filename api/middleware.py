"""Around every request: who asks, its number, its time, and the answer to what nobody expected."""

import logging
import time

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import envelope, error_response
from core.errors import InvalidRequest, TooLarge, Unauthenticated
from core.records.ids import new_id
from core.spec.addresses import is_loopback_url
from core.spec.bearer import has_key
from core.spec.engine_protocol import WRONG_KEY, EngineKeyRefused

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


class AuthMiddleware:
    """Lets nobody under /v1 without the API key, and under /internal without the engines' key.

    It decides before a byte of the body is read. A service without a key answers this machine
    only. Its loopback address does not see to that: any web page can send requests there through
    the browser of its visitor.
    """

    def __init__(
        self, app: ASGIApp, api_key: SecretStr | None, engine_key: SecretStr | None
    ) -> None:
        self.app = app
        self._api_key = api_key
        self._engine_key = engine_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._api_key is None and (refusal := _refusal_of_others(headers)):
            return refusal
        if scope["path"].startswith("/internal"):
            return self._refusal_of_engine(headers)
        if self._api_key is None or not scope["path"].startswith("/v1"):
            return None
        if has_key(headers.get("authorization"), self._api_key):
            return None
        return error_response(
            Unauthenticated("Missing or wrong API key. Send it as `Authorization: Bearer <key>`.")
        )

    def _refusal_of_engine(self, headers: Headers) -> Response | None:
        """Who asks its clients for a key asks its engines for one: they get all that is asked."""
        if self._engine_key is None:
            is_welcome = self._api_key is None
        else:
            is_welcome = has_key(headers.get("authorization"), self._engine_key)
        if is_welcome:
            return None
        return error_response(Unauthenticated(WRONG_KEY, code=EngineKeyRefused.code))


def _refusal_of_others(headers: Headers) -> Response | None:
    """Refuse what a web page of another site sends, under its own name or under one for us."""
    for name, url in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin"))):
        if url is not None and not is_loopback_url(url):
            return envelope(
                403,
                f"The header {name} names another machine, and without an API key this service "
                "answers its own only. Use http://127.0.0.1 or http://localhost, or set "
                "TUNESMITH_API_KEY for the service.",
                param=name,
                code="foreign_request",
            )
    return None


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
