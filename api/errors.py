"""Turns errors into responses: the only place with OpenAI's envelope and HTTP statuses."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

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
from core.spec.names import TWO_NAMES

logger = logging.getLogger(__name__)

RATE_LIMIT_CODES = frozenset({"rate_limit_exceeded", "too_many_uploads"})
"""Codes of Unavailable for overload, which has a different HTTP status than an outage."""

MAX_PARAM_CHARACTERS = 500
"""An unknown field may have a name of megabytes."""

_STATUS_BY_ERROR: tuple[tuple[type[TunesmithError], int], ...] = (
    (InvalidRequest, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Unavailable, 503),
)

_MESSAGE_BY_KIND = {
    "missing": ("missing_required_parameter", "Missing required parameter: {param!r}."),
    "extra_forbidden": ("unknown_parameter", "Unknown parameter: {param!r}."),
}


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
        return error_response(_from_validation(error))

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


def _from_validation(error: RequestValidationError) -> InvalidRequest:
    """Return the error of the first invalid field, by its dotted path, with all reasons.

    If the field may be a name or a list, the path is that of the invalid item of the list.
    """
    errors: Sequence[dict[str, Any]] = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(
            f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}.",
            code="invalid_json",
        )
    param = _dotted(first, error.body)
    if first["type"] == TWO_NAMES:
        return _from_two_names(first["ctx"], param)
    for each in errors:
        if (inside := _dotted(each, error.body)).startswith(f"{param}["):
            first, param = each, inside
            break
    if not param and first["type"] == "value_error":
        return InvalidRequest(f"The body is not valid: {_reason(first)}.", code="invalid_value")
    if not param:
        return InvalidRequest("The body must be a JSON object; send application/json.")
    if first["type"] in _MESSAGE_BY_KIND:
        code, template = _MESSAGE_BY_KIND[first["type"]]
        return InvalidRequest(template.format(param=param), param=param, code=code)
    same_field = (each for each in errors if _dotted(each, error.body) == param)
    reasons = "; or ".join(dict.fromkeys(_reason(each) for each in same_field))
    return InvalidRequest(
        f"Invalid value for {param!r}: {reasons}.", param=param, code="invalid_value"
    )


def _from_two_names(names: dict[str, str], parent: str) -> InvalidRequest:
    """Return the error of two names for the same field of the object at `parent`."""
    first, other = (f"{parent}.{names[key]}".removeprefix(".") for key in ("first", "other"))
    return InvalidRequest(
        f"{first!r} and {other!r} name the same field and have different values. Use only one.",
        param=first,
        code="contradictory_parameters",
    )


def _reason(error: dict[str, Any]) -> str:
    message: str = error["msg"].removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _dotted(error: dict[str, Any], body: object) -> str:
    """`method.supervised.hyperparameters.n_epochs`, `prompt[3]`."""
    source, *path = error["loc"]
    steps = _steps_in_body(path, body, error["type"]) if source == "body" else path
    dotted = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return dotted.removeprefix(".")[:MAX_PARAM_CHARACTERS]


def _steps_in_body(path: list[int | str], body: Any, kind: str) -> Iterator[int | str]:
    """Yield the part of pydantic's path that is in the body; the rest names members of unions."""
    value = body
    for step in path:
        if _holds(value, step):
            value = value[step]
            yield step
        elif kind == "missing" and step is path[-1]:
            yield step
    if kind == "union_tag_invalid":
        yield "type"  # the discriminator of such a union


def _holds(value: object, step: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value
