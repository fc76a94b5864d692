"""Turns errors into responses: `core.inference.error_bodies` has their statuses and bodies."""

import json
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_type_hints

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from core.errors import TunesmithError, Unauthenticated, Unavailable
from core.inference.error_bodies import error_body, status_of
from core.inference.invalid_body import invalid_body

logger = logging.getLogger(__name__)


class ErrorDetails(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """OpenAI's format of an error."""

    error: ErrorDetails


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope},
    "5XX": {"model": ErrorEnvelope},
}
"""For our OpenAPI description; FastAPI would describe its own format."""


def install_error_handlers(app: FastAPI) -> None:
    """Give every error an envelope. `api.middleware` handles unexpected errors."""

    @app.exception_handler(TunesmithError)
    def domain_error(request: Request, error: TunesmithError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        model = _body_model(request.scope["endpoint"])
        return error_response(invalid_body(error.errors(), error.body, model))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, TunesmithError):  # raised while reading the body
            return error_response(error.__cause__)
        answer: Response = envelope(
            error.status_code, _http_message(request, error), code=_http_code(error.status_code)
        )
        if error.status_code == 405:
            if request.method == "OPTIONS":
                answer = Response(status_code=204)
            answer.headers["allow"] = ", ".join(sorted(_methods_of(request)))
        return answer

    @app.exception_handler(SQLAlchemyError)
    def database_error(request: Request, error: SQLAlchemyError) -> JSONResponse:
        if not _is_database_unavailable(error):
            raise error  # a bug, which a retry does not fix
        logger.error("The database is unavailable: %s", error)
        return error_response(Unavailable("The database is unavailable. Try again in a moment."))

    @app.exception_handler(ClientDisconnect)
    def client_gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return envelope(499, "The client closed the connection.", code="client_closed_request")


def error_response(error: TunesmithError) -> JSONResponse:
    """Return the response to a domain error; its headers say whether the client may retry."""
    response = envelope(status_of(error), error.message, param=error.param, code=error.code)
    if isinstance(error, Unavailable):
        response.headers["retry-after"] = str(error.retry_after_seconds)
    if isinstance(error, Unauthenticated):
        response.headers["www-authenticate"] = "Bearer"
    return response


def envelope(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """Return an error response. Stock clients retry 408, 409, 429 and 5xx unless told not to."""
    response = _AsciiResponse(error_body(status, message, param=param, code=code), status)
    if status < 500 and status not in (408, 429):
        response.headers["x-should-retry"] = "false"
    return response


def _methods_of(request: Request) -> set[str]:
    """Return the methods of all routes with the path of a request."""
    methods = {"OPTIONS"}
    for method in ("DELETE", "GET", "POST"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            methods |= {"GET", "HEAD"} if method == "GET" else {method}
    return methods


@lru_cache
def _body_model(endpoint: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the model of a route's body, from the parameters of its function."""
    for annotation in get_type_hints(endpoint).values():
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
    return None


def _is_database_unavailable(error: SQLAlchemyError) -> bool:
    """Return whether the connection was lost, failed or timed out."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout)
    return error.connection_invalidated or (
        # A failed connection raises before there is a statement.
        isinstance(error, OperationalError) and error.statement is None
    )


class _AsciiResponse(JSONResponse):
    """Messages may quote text that UTF-8 cannot encode, such as half of a surrogate pair."""

    def render(self, content: object) -> bytes:
        return json.dumps(content).encode("ascii")


def _http_code(status: int) -> str:
    known = {404: "unknown_url", 405: "method_not_allowed"}
    return known.get(status, "invalid_request")


def _http_message(request: Request, error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return f"Unknown request URL: {request.method} {request.url.path}."
        case 405:
            return f"{request.method} is not allowed on {request.url.path}."
        case _:
            return str(error.detail)
