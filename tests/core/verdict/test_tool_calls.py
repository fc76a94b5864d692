"""When an answer makes the calls of its row."""

import json

import pytest

from core.verdict.tool_calls import is_same_calls, is_same_names


def call(name: str, arguments: object) -> dict[str, object]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "function", "function": {"name": name, "arguments": text}}


WANTED = call("book", {"city": "Bern", "nights": 2, "rooms": [{"beds": 1}], "late": True})


@pytest.mark.parametrize(
    "made",
    [
        '{"late": true, "rooms": [{"beds": 1}], "nights": 2, "city": "Bern"}',
        '{"city":"Bern","nights":2.0,"rooms":[{"beds":1.0}],"late":true}',
        ' {"city": "\\u0042ern", "nights": 2, "rooms": [{"beds": 1}], "late": true} ',
    ],
    ids=["order of keys", "numbers", "escapes and spaces"],
)
def test_arguments_are_compared_as_values(made: str) -> None:
    assert is_same_calls([WANTED], [call("book", made)])


@pytest.mark.parametrize(
    "change",
    [
        {"city": "bern"},
        {"nights": "2"},
        {"late": 1},
        {"late": None},
        {"rooms": []},
        {"rooms": [{"beds": 1}, {"beds": 1}]},
        {"extra": None},
    ],
)
def test_other_arguments_differ(change: dict[str, object]) -> None:
    given = json.loads(WANTED["function"]["arguments"])  # type: ignore[index]
    assert not is_same_calls([WANTED], [call("book", given | change)])
    assert is_same_names([WANTED], [call("book", given | change)])


def test_missing_key_differs() -> None:
    assert not is_same_calls([call("f", {"a": 1, "b": 2})], [call("f", {"a": 1})])
    assert not is_same_calls([call("f", {"a": 1})], [call("f", {"a": 1, "b": 2})])


def test_parallel_calls_have_no_order_but_a_number() -> None:
    one, two = call("f", {"a": 1}), call("f", {"a": 2})
    assert is_same_calls([one, two], [two, one])
    assert not is_same_calls([one, two], [one, one])
    assert not is_same_calls([one], [one, one])
    assert is_same_names([one, two], [one, one])
    assert not is_same_names([one], [one, one])


def test_row_without_calls_wants_none() -> None:
    assert is_same_calls([], []) and is_same_names([], [])
    assert not is_same_calls([], [WANTED]) and not is_same_calls([WANTED], [])


def test_arguments_that_are_no_json_are_compared_as_text() -> None:
    assert is_same_calls([call("f", "{broken")], [call("f", "{broken")])
    assert not is_same_calls([call("f", "{}")], [call("f", "{broken")])
    assert is_same_calls([call("f", "{}")], [call("f", "")])
    assert not is_same_calls([call("f", "[" * 100_000)], [call("f", {})])


def test_arguments_as_an_object_equal_their_text() -> None:
    as_object = {"function": {"name": "f", "arguments": {"a": [1, 2]}}}
    assert is_same_calls([as_object], [call("f", {"a": [1, 2]})])
