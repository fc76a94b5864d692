"""Errors as OpenAI's clients see them, without HTTP: their statuses and bodies.

`api.errors` sends them as responses; a batch writes them into its error file.
"""

from collections.abc import Mapping
from typing import Any

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


def status_of(error: TunesmithError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, Unavailable) and error.code in RATE_LIMIT_CODES:
        return 429
    return next((status for kind, status in _STATUS_BY_ERROR if isinstance(error, kind)), 500)


def error_body(status: int, message: str, *, param: str | None, code: str | None) -> dict[str, Any]:
    """Return OpenAI's error envelope."""
    return {"error": {"message": message, "type": _type(status), "param": param, "code": code}}


def error_of(status: int, body: Mapping[str, Any]) -> TunesmithError:
    """Return the error that has this status and envelope; the opposite of the two above."""
    error = body["error"]
    if status == 429:
        kind: type[TunesmithError] = Unavailable
    else:
        kind = next((kind for kind, each in _STATUS_BY_ERROR if each == status), TunesmithError)
    return kind(error["message"], param=error["param"], code=error["code"])


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "server_error" if status >= 500 else "invalid_request_error"
