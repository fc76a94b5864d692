"""`expires_after` of an upload, whose form has its two values as fields of their own."""

from collections.abc import Mapping

from core.errors import InvalidRequest

ANCHOR = "expires_after[anchor]"
SECONDS = "expires_after[seconds]"

SHORTEST_SECONDS = 3600
LONGEST_SECONDS = 2_592_000
"""OpenAI's bounds: an hour and thirty days."""


def lifetime(fields: Mapping[str, str]) -> int | None:
    """Return the seconds from the upload to the expiry; None without the two fields."""
    if not fields:
        return None
    for name in (ANCHOR, SECONDS):
        if name not in fields:
            raise InvalidRequest(
                f"Missing required parameter: {name!r}.",
                param=name,
                code="missing_required_parameter",
            )
    if fields[ANCHOR] != "created_at":
        raise _invalid(ANCHOR, "use 'created_at', the only anchor")
    written = fields[SECONDS]
    if not (written.isascii() and written.isdigit()):
        raise _invalid(SECONDS, "write an integer")
    if not SHORTEST_SECONDS <= int(written) <= LONGEST_SECONDS:
        raise _invalid(SECONDS, f"it must be from {SHORTEST_SECONDS} to {LONGEST_SECONDS}")
    return int(written)


def _invalid(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for {name!r}: {reason}.", param=name, code="invalid_value"
    )
