"""The error that an engine sends in the middle of an answer."""

import pytest

from core.errors import InvalidRequest, TunesmithError
from core.spec.generation import GenerationFailed


@pytest.mark.parametrize(
    ("param", "kind"), [("response_format", InvalidRequest), (None, TunesmithError)]
)
def test_failure_that_names_a_field_is_the_request_s(param: str | None, kind: type) -> None:
    error = GenerationFailed(
        code="form_too_complex", message="Simplify it.", param=param
    ).as_error()
    assert type(error) is kind
    assert (error.message, error.param, error.code) == ("Simplify it.", param, "form_too_complex")
