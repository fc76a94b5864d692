"""Where a misspelt key ends and a column of somebody else's begins."""

import pytest

from core.datasets.misspelled import intended_key

KNOWN = ("content", "weight", "tool_calls", "name", "role", "id")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("contents", "content"),
        ("conten", "content"),
        ("contnet", "content"),
        ("cintent", "content"),
        ("wieght", "weight"),
        ("Weight", "weight"),
        ("toolCalls", "tool_calls"),
        ("tool-calls", "tool_calls"),
        ("tool calls", "tool_calls"),
        ("tool_call", "tool_calls"),
        ("ID", "id"),
        ("idx", None),
        ("contextual", None),
        ("annotations", None),
        ("source", None),
        ("", None),
        ("c" * 1_000_000, None),
    ],
)
def test_one_slip_or_another_case_is_a_misspelling(name: str, meant: str | None) -> None:
    assert intended_key(name, KNOWN, ()) == meant


def test_a_key_that_is_there_is_not_meant() -> None:
    assert intended_key("contents", KNOWN, {"content": "x", "contents": "y"}) is None
