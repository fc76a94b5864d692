"""Turns errors into responses: the only place with OpenAI's envelope and HTTP statuses."""

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from api.invalid_body import from_validation
from core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    TunesmithError,
    Unauthenticated,
    Unavailable,
)

logger = logging.getLogger(__name__)

RATE_LIMIT_CODES = frozenset({"rate_limit_exceeded", "too_many_uploads"})
"""Codes of Unavailable for overload, which has a different HTTP status than an outage."""

_STATUS_BY_ERROR: tuple[tuple[type[TunesmithError], int], ...] = (
    (InvalidRequest, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Unavailable, 503),
)


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
        return error_response(from_validation(error, request.scope.get("endpoint")))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, TunesmithError):  # raised while reading the body
            return error_response(error.__cause__)
        return envelope(
            error.status_code, _http_message(request, error), code=_http_code(error.status_code)
        )

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
    status = next((status for kind, status in _STATUS_BY_ERROR if isinstance(error, kind)), 500)
    if not isinstance(error, Unavailable):
        return envelope(status, error.message, param=error.param, code=error.code)
    if error.code in RATE_LIMIT_CODES:
        status = 429
    response = envelope(status, error.message, param=error.param, code=error.code)
    response.headers["retry-after"] = str(error.retry_after_seconds)
    return response


def error_body(status: int, message: str, *, param: str | None, code: str | None) -> dict[str, Any]:
    """Return OpenAI's error envelope."""
    return {"error": {"message": message, "type": _type(status), "param": param, "code": code}}


def envelope(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """Return an error response. Stock clients retry 408, 409, 429 and 5xx unless told not to."""
    response = _AsciiResponse(error_body(status, message, param=param, code=code), status)
    if status < 500 and status not in (408, 429):
        response.headers["x-should-retry"] = "false"
    return response


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


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "server_error" if status >= 500 else "invalid_request_error"


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
