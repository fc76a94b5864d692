"""One rule for keys, at the API's door and at an engine's."""

import pytest
from pydantic import SecretStr

from core.spec.bearer import bearer, has_key

KEY = SecretStr("s3cret-\xe0")  # its last byte in UTF-8 is a space in Latin-1


def as_servers_read(value: bytes) -> str:
    return value.decode("latin-1")


def test_what_is_sent_is_taken() -> None:
    assert has_key(as_servers_read(bearer(KEY)), KEY)


@pytest.mark.parametrize("form", [b"bearer %s", b"BEARER %s", b"Bearer  %s", b"Bearer %s\t "])
def test_scheme_and_white_space_may_be_written_otherwise(form: bytes) -> None:
    assert has_key(as_servers_read(form % KEY.get_secret_value().encode()), KEY)


@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer", "Bearer ", "s3cret", "Basic s3cret", "Bearer S3cret", "Bearers3cret"],
)
def test_anything_else_is_not(sent: str | None) -> None:
    assert not has_key(sent, SecretStr("s3cret"))
