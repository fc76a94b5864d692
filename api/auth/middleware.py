"""Authenticates requests before their bodies are read."""

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.caller import attach_caller
from api.auth.keys import StaticKey
from api.errors import envelope, error_response
from core.errors import Unauthenticated
from core.spec.addresses import is_loopback_url
from core.spec.bearer import has_key
from core.spec.engine_protocol import WRONG_KEY, EngineKeyRefused

FOR_CALLERS = ("/v1", "/tokenize", "/detokenize", "/tokenizer_info")
"""The beginnings of the paths that need a key; those of vLLM's tokenizer are at the root."""


class AuthMiddleware:
    """Attaches a `Caller` to every request of FOR_CALLERS, and rejects those without a valid key.

    Requests under /internal need the engines' key. A service without an API key accepts only
    requests from its own machine. A loopback address is not enough for that: any web page can send
    requests there through its visitor's browser.
    """

    def __init__(self, app: ASGIApp, key: StaticKey, engine_key: SecretStr | None) -> None:
        self.app = app
        self._key = key
        self._engine_key = engine_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._admit(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _admit(self, scope: Scope) -> Response | None:
        """Attach the caller, or return the rejection."""
        headers = Headers(scope=scope)
        if not self._key.is_set and (refusal := _refusal_of_others(headers)):
            return refusal
        if scope["path"].startswith("/internal"):
            return self._refusal_of_engine(headers)
        if not scope["path"].startswith(FOR_CALLERS):
            return None
        caller = self._key.caller(headers)
        if caller is None:
            return error_response(
                Unauthenticated(
                    "Missing or wrong API key. Send it as `Authorization: Bearer <key>`."
                )
            )
        attach_caller(scope, caller)
        return None

    def _refusal_of_engine(self, headers: Headers) -> Response | None:
        """If clients need a key, engines need one too, because they receive all requests."""
        if self._engine_key is None:
            is_admitted = not self._key.is_set
        else:
            is_admitted = has_key(headers.get("authorization"), self._engine_key)
        if is_admitted:
            return None
        return error_response(Unauthenticated(WRONG_KEY, code=EngineKeyRefused.code))


def _refusal_of_others(headers: Headers) -> Response | None:
    """Reject requests from web pages of other sites, by their origin or their name for us."""
    for name, url in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin"))):
        if url is not None and not is_loopback_url(url):
            return envelope(
                403,
                f"The header {name} names another machine. Without an API key, this service "
                "accepts requests only from its own machine. Use http://127.0.0.1 or "
                "http://localhost, or set TUNESMITH_API_KEY for the service.",
                param=name,
                code="foreign_request",
            )
    return None
