"""Items of every form that clients send, and the messages that a model reads."""

from typing import Any

import pytest

from core.errors import InvalidRequest
from core.inference.responses.items import given_items, references
from core.inference.responses.messages import chat_messages
from tests.contract.contract import check_schema
from tests.core.inference.responses.planned import answer, call, plan_of, response_of, thought

CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "3"}


def messages_of(*items: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    return chat_messages(instructions, given_items(items, {}))


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": "hi"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "user", "content": "hi"},
        {"role": "user", "content": "hi", "phase": None, "name": "someone"},
    ],
)
def test_a_message_has_many_forms(item: dict[str, Any]) -> None:
    assert messages_of(item) == [{"role": "user", "content": "hi"}]
    (stored,) = given_items([item], {})
    check_schema("ItemResource", stored)
    assert stored["content"][0]["type"] == "input_text"
    assert stored["id"].startswith("msg_")


def test_what_an_answer_had_may_be_sent_back() -> None:
    part = {
        "type": "output_text",
        "text": "Hello.",
        "annotations": [{"type": "url_citation"}],
        "logprobs": [{"token": "Hello."}],
        "parsed": None,
    }
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert messages_of({"role": "user", "content": "hi"}, item, refusal)[1:] == [
        {"role": "assistant", "content": "Hello."},
        {"role": "assistant", "content": "No."},
    ]


def test_a_whole_output_goes_back_as_one_turn() -> None:
    """Reasoning, text and calls are one message, as in the chats that models are trained on."""
    plan = plan_of(tools=[{"type": "function", "name": "add"}])
    output = response_of(plan, answer(thought("Hm"), "I add.", call(), call()))["output"]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": str(number)}
        for number, item in enumerate(output[2:])
    ]
    _user, turn, *tools = messages_of({"role": "user", "content": "?"}, *output, *results)
    assert (turn["content"], turn["reasoning_content"]) == ("I add.", "Hm")
    assert [each["id"] for each in turn["tool_calls"]] == [item["call_id"] for item in output[2:]]
    assert [(each["role"], each["content"]) for each in tools] == [("tool", "0"), ("tool", "1")]
    for item in given_items([*output, *results], {}):
        check_schema("ItemResource", item)


def test_calls_and_outputs_in_turns_are_several_messages() -> None:
    second = {"call_id": "call_2"}
    found = messages_of(CALL, OUTPUT, CALL | second, OUTPUT | second, instructions="Add.")
    assert [each["role"] for each in found] == ["system", *("assistant", "tool") * 2]


def test_output_of_a_call_may_have_parts() -> None:
    parts = [{"type": "input_text", "text": "3"}, {"type": "input_text", "text": "!"}]
    assert messages_of(CALL, OUTPUT | {"output": parts})[-1]["content"] == "3!"


def test_reasoning_without_an_answer_is_left_out() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    question = {"role": "user", "content": "hi"}
    assert messages_of(question, reasoning, question) == [question, question]
    summary = reasoning | {"summary": [{"type": "summary_text", "text": "Hm"}]}
    said = {"role": "assistant", "content": "Hello."}
    assert messages_of(question, summary, said)[1] == said | {"reasoning_content": "Hm"}


def test_a_thought_in_tags_belongs_to_the_next_message() -> None:
    """pydantic-ai sends the reasoning of models that it does not know back like this."""
    thought_, said = "<think>\nHm\n</think>", {"role": "assistant", "content": "42"}
    found = messages_of({"role": "user", "content": "?"}, said | {"content": thought_}, said)
    assert found[1:] == [said | {"content": f"{thought_}42"}]
    assert messages_of({"role": "user", "content": "?"}, said, said)[1:] == [said, said]


def test_instructions_and_opening_system_messages_are_one() -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "Now be long."},
    ]
    found = messages_of(*items, instructions="You add.")
    assert found[0] == {"role": "system", "content": "You add.\n\nBe brief."}
    assert [each["role"] for each in found] == ["system", "user", "system"]


def test_a_string_is_a_message_of_the_user() -> None:
    assert chat_messages(None, given_items("hi", {})) == [{"role": "user", "content": "hi"}]


def test_references_are_resolved_among_the_known_items() -> None:
    given = [{"type": "item_reference", "id": "fc_1"}, {"id": "msg_1"}, OUTPUT]
    assert references(given) == ["fc_1", "msg_1"]
    (message,) = given_items([{"role": "assistant", "content": "x"}], {})
    (stored,) = given_items([CALL], {})
    found = given_items(given, {"fc_1": stored, "msg_1": message})
    assert found[:2] == [stored, message]
    with pytest.raises(InvalidRequest, match="'msg_1' not found") as refusal:
        given_items(given, {"fc_1": stored})
    assert (refusal.value.param, refusal.value.code) == ("input[1]", "item_not_found")


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"role": "robot", "content": "x"}, "input[0].role", "invalid_value"),
        ({"role": "user"}, "input[0].content", "invalid_value"),
        ({"role": "user", "content": {"text": "x"}}, "input[0].content", "invalid_value"),
        ({"role": "user", "content": "\ud800"}, "input[0].content", "invalid_value"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0]",
            "unsupported_content",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "x"}]},
            "input[0].content[0]",
            "unsupported_content",
        ),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "input[0].content[0].text",
            "invalid_value",
        ),
        (CALL | {"arguments": {}}, "input[0].arguments", "invalid_value"),
        (OUTPUT | {"output": 3}, "input[0].output", "invalid_value"),
        (
            OUTPUT | {"output": [{"type": "input_image", "image_url": "x"}]},
            "input[0].output[0]",
            "unsupported_content",
        ),
        ({"type": "web_search_call", "id": "ws_1"}, "input[0].type", "invalid_value"),
        ({"type": "reasoning", "summary": "x"}, "input[0].summary", "invalid_value"),
        ({}, "input[0].type", "invalid_value"),
    ],
    ids=str,
)
def test_an_invalid_item_is_named(item: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        given_items([item], {})
    assert (refusal.value.param, refusal.value.code) == (param, code)


def test_what_no_model_can_read_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="No function call with call_id 'call_1'"):
        messages_of({"role": "user", "content": "hi"}, OUTPUT)
    for items in ((), ({"role": "system", "content": "Be brief."},)):
        with pytest.raises(InvalidRequest, match="no message of the user"):
            messages_of(*items)
