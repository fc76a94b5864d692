"""Messages of a request with what servers, clients and frameworks have put into them."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw

from core.datasets import misspelled
from core.datasets.chat import parse_conversation
from core.datasets.row_errors import RowErrors
from core.errors import InvalidRequest
from core.inference.history import MOST_UNKNOWN, cleaned

USER = {"role": "user", "content": "What is 1 + 2?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "m.add", "arguments": '{"a": 1}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "3"}


def called(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [CALL]} | more


def parsed(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as a template gets them, which must have no error."""
    errors = RowErrors()
    with errors.bounded():
        result = parse_conversation(list(cleaned(messages)), errors)
    assert errors.found == ()
    return list(result)


SENT_BACK = {
    "openai-python parse()": called(
        refusal=None,
        annotations=None,
        audio=None,
        function_call=None,
        parsed=None,
        tool_calls=[
            CALL | {"function": {**CALL["function"], "parsed_arguments": {"a": 1}}}  # type: ignore[dict-item]
        ],
    ),
    "openai-python stream()": called(
        refusal=None, parsed=None, tool_calls=[{**CALL, "index": 0}], content=""
    ),
    "openai-node parse()": called(parsed=None, refusal=None, annotations=[], tool_calls=[CALL]),
    "LiteLLM": called(
        function_call=None,
        provider_specific_fields={"refusal": None},
        thinking_blocks=[],
        images=[],
        tool_calls=[{**CALL, "index": 0, "caller": {"type": "direct"}}],
    ),
    "LangChain": called(
        id="run-1", name=None, response_metadata={}, usage_metadata={"input_tokens": 1}
    ),
    "AI SDK": called(content="", id="msg_1"),
    "pydantic-ai": called(reasoning_content=None, tool_calls=[CALL]),
    "a client without types": called(tool_calls=[{"id": "call_1", "function": CALL["function"]}]),
    "parts with prompt caching": called(content=[]),
}


@pytest.mark.parametrize("answer", SENT_BACK.values(), ids=SENT_BACK.keys())
def test_an_answer_with_additions_is_read_as_without(answer: dict[str, Any]) -> None:
    assert parsed(USER, answer, RESULT) == parsed(USER, called(), RESULT)


@pytest.mark.parametrize(
    "extra",
    [
        {"reasoning_content": "One, two."},
        {"reasoning": "One, two."},
        {"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "One, two."}]},
        {
            "reasoning_details": [
                {"type": "reasoning.encrypted", "data": "c2VjcmV0"},
                {"type": "reasoning.summary", "summary": "One, two."},
            ]
        },
        {"thinking_blocks": [{"type": "thinking", "thinking": "One, two.", "signature": "s"}]},
        {"reasoning_content": "One, two.", "reasoning": "One, two.", "reasoning_details": []},
    ],
)
def test_reasoning_is_used_under_any_name(extra: dict[str, Any]) -> None:
    *_, answer = parsed(USER, {"role": "assistant", "content": "3", **extra})
    assert answer == {"role": "assistant", "content": "3", "reasoning_content": "One, two."}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "What is 1 + 2?", "cache_control": {"type": "ephemeral"}},
        {"type": "input_text", "text": "What is 1 + 2?"},
        "What is 1 + 2?",
    ],
)
def test_parts_are_text(part: Any) -> None:
    assert parsed({"role": "user", "content": [part]}) == [USER]


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize("answer", [{"role": "assistant"}, called()], ids=["answer", "call"])
def test_an_answer_may_be_empty(answer: dict[str, Any], content: Any) -> None:
    assert parsed(USER, {**answer, "content": content})[1]["content"] == ""


def test_a_refusal_is_the_text_of_an_answer_without_another() -> None:
    *_, answer = parsed(USER, {"role": "assistant", "content": None, "refusal": "I do not add."})
    assert answer["content"] == "I do not add."


@pytest.mark.parametrize("content", [None, [], ""])
def test_a_function_may_return_nothing(content: Any) -> None:
    assert parsed(USER, called(), RESULT | {"content": content})[2]["content"] == ""


@pytest.mark.parametrize("arguments", [None, "", "null", "{}"])
def test_a_call_may_have_no_arguments(arguments: str | None) -> None:
    call = CALL | {"function": {"name": "now", "arguments": arguments}}
    assert parsed(USER, called(tool_calls=[call]))[1]["tool_calls"][0]["function"] == {
        "name": "now",
        "arguments": {},
    }


def test_missing_ids_of_calls_and_results_are_filled_in() -> None:
    first, second = (
        {"type": "function", "function": {"name": name, "arguments": "{}"}} for name in "ab"
    )
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    _, answer, one, two = parsed(USER, called(tool_calls=[first, second]), *results)
    ids = [call["id"] for call in answer["tool_calls"]]
    assert [one["tool_call_id"], two["tool_call_id"]] == ids


def test_a_result_without_an_id_answers_the_call_with_its_name() -> None:
    calls = [
        {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in "ab"
    ]
    results = [
        {"role": "tool", "name": "b", "content": "2"},
        {"role": "tool", "content": "1", "tool_call_id": None},
    ]
    *_, b, a = parsed(USER, called(tool_calls=calls), *results)
    assert [b["tool_call_id"], a["tool_call_id"]] == ["call_b", "call_a"]


def test_the_older_functions_are_read() -> None:
    call = {"name": "add", "arguments": '{"a": 1}', "parsed_arguments": {"a": 1}}
    answer = {"role": "assistant", "content": None, "function_call": call, "tool_calls": None}
    result = {"role": "function", "name": "add", "content": "3"}
    _, asked, answered = parsed({"role": "developer", "content": "Add."}, answer, result)
    assert asked["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert answered["tool_call_id"] == asked["tool_calls"][0]["id"]


@pytest.mark.parametrize(
    ("message", "param", "says"),
    [
        ({"role": "user", "contnet": "hi"}, "messages[0].contnet", "Did you mean 'content'?"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
            "messages[0].content[0].type",
            "text only",
        ),
        ({"role": "assistant", "audio": {"id": "audio_1"}}, "messages[0].audio", "text"),
        ("hi", "messages[0]", "an object"),
        (
            called(tool_calls=[{"function": {"name": "f", "argumnets": "{}"}}]),
            "messages[0].tool_calls[0].function.argumnets",
            "Did you mean 'arguments'?",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused(message: Any, param: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says.replace("?", r"\?")) as refusal:
        cleaned([message])
    assert refusal.value.param == param


_FIELDS = ("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "audio")
_INSIDE = ("id", "type", "function", "arguments", "text", "thinking")
NAMES = draw.sampled_from([*_FIELDS, *_INSIDE, "user", "assistant", "tool"])
VALUES = draw.recursive(
    draw.none() | draw.booleans() | draw.integers() | NAMES | draw.text(max_size=5),
    lambda inner: draw.lists(inner, max_size=3) | draw.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
MESSAGES = draw.fixed_dictionaries(
    {"role": NAMES | VALUES, "content": VALUES},
    optional={"tool_calls": VALUES, "reasoning": VALUES},
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(draw.lists(MESSAGES | VALUES, max_size=4))
def test_no_history_whatever_breaks_the_server(messages: list[Any]) -> None:
    with suppress(InvalidRequest):
        errors = RowErrors()
        with errors.bounded():
            parse_conversation(list(cleaned(messages)), errors)


def test_the_time_is_bounded_for_any_number_of_unknown_fields() -> None:
    misspelled._misspells.cache_clear()
    extra = [{f"extra{message}x{key}": 1 for key in range(20)} for message in range(1000)]
    cleaned([{**USER, **each} for each in extra])
    assert misspelled._misspells.cache_info().misses <= MOST_UNKNOWN * 20
