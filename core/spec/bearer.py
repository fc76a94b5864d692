"""Keys in the header `Authorization: Bearer <key>`: how they are sent and how they are checked."""

import secrets

from pydantic import SecretStr


def bearer(key: SecretStr) -> bytes:
    """Return the header's value. As bytes, since clients encode text differently."""
    return b"Bearer " + key.get_secret_value().encode()


def has_key(authorization: str | None, expected: SecretStr) -> bool:
    """Return whether a header's value holds the expected key.

    The scheme is read in any case and white space around the key is ignored, as RFC 9110 asks. The
    value is text as ASGI servers decode it, one character per byte. The comparison takes the same
    time for every wrong key of one length.
    """
    scheme, _, key = (authorization or "").partition(" ")
    is_right = secrets.compare_digest(
        key.strip(" \t").encode("latin-1"), expected.get_secret_value().encode()
    )
    return scheme.lower() == "bearer" and is_right
