"""A request that a client may send again because it lost the answer."""

from typing import NamedTuple


class Repeatable(NamedTuple):
    """What identifies a request, as its client says and as its content is."""

    key: str | None
    """The `Idempotency-Key`: requests with the same key are the same request."""
    tries: int
    """How often the client sent it before. Without a key, a first try is always a new request."""
    fingerprint: str
    """The SHA-256 of method, path and body."""
