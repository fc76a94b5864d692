"""ShareGPT's turns as messages."""

import json
from typing import Any

import pytest

from core.datasets.formats import ChatExample, parse_row

HUMAN = {"from": "human", "value": "How warm is it?"}
GPT = {"from": "gpt", "value": "4 degrees."}
SYSTEM = {"from": "system", "value": "Be brief."}
FUNCTION = {"name": "weather", "description": "The weather now.", "parameters": {}}
TOOL = {"type": "function", "function": FUNCTION}


def turns(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"conversations": list(turns), **more}


def called(value: object) -> dict[str, Any]:
    return {"from": "function_call", "value": json.dumps(value)}


def parsed(row: dict[str, Any]) -> ChatExample:
    example = parse_row(row, "chat")
    assert isinstance(example, ChatExample), example
    return example


@pytest.mark.parametrize(
    "row", [turns(SYSTEM, HUMAN, GPT, id="x1"), turns(HUMAN, GPT, system="Be brief.", tools="")]
)
def test_turns_become_messages(row: dict[str, Any]) -> None:
    assert parsed(row) == ChatExample(
        (
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How warm is it?"},
            {"role": "assistant", "content": "4 degrees."},
        )
    )


def test_observations_answer_the_calls_before_them_in_order() -> None:
    calls = [
        {"name": "weather", "arguments": {"city": "Oslo"}},
        {"name": "weather", "arguments": '{"city": "Bergen"}'},
    ]
    results = [{"from": "observation", "value": "4"}, {"from": "observation", "value": "9"}]
    messages = parsed(turns(HUMAN, called(calls), *results, GPT, tools=[TOOL])).messages
    made = messages[1]["tool_calls"]
    assert messages[1]["content"] == ""
    assert [call["function"]["arguments"]["city"] for call in made] == ["Oslo", "Bergen"]
    assert made[0]["id"] != made[1]["id"]
    assert [message.get("tool_call_id") for message in messages[2:4]] == [
        made[0]["id"],
        made[1]["id"],
    ]


def test_a_tool_turn_may_stand_alone() -> None:
    calls_in_text = {"from": "gpt", "value": "<tool_call>{}</tool_call>"}
    result = {"from": "tool", "value": "4"}
    messages = parsed(turns(HUMAN, calls_in_text, result, GPT)).messages
    assert messages[2] == {"role": "tool", "content": "4"}


@pytest.mark.parametrize("tools", [[TOOL], [FUNCTION], json.dumps([FUNCTION]), json.dumps([TOOL])])
def test_tools_are_taken_with_and_without_wrapping_and_as_text(tools: object) -> None:
    assert parsed(turns(HUMAN, GPT, tools=tools)).tools == (TOOL,)


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (turns(), "conversations", "is an empty list; write a list of turns"),
        ({"conversations": "hi"}, "conversations", "is 'hi'; write a list of turns"),
        (turns(1), "conversations[0]", "is 1; write an object with from and value"),
        (turns({"from": "users", "value": "x"}), "conversations[0].from", "use one of human, gpt"),
        (turns({"from": ["gpt"], "value": "x"}), "conversations[0].from", "is a list; use one"),
        (turns({"form": "gpt", "value": "x"}), "conversations[0].form", "rename it to 'from'"),
        (turns({"from": "human", "value": 1}, GPT), "conversations[0].value", "is 1; write a"),
        (turns(HUMAN, {"from": "gpt", "value": ""}), "conversations[1].value", "is an empty"),
        (turns(HUMAN), "conversations", "has no assistant message"),
        (turns(HUMAN, GPT, HUMAN), "conversations[2]", "end with role 'assistant'"),
        (turns(SYSTEM, HUMAN, GPT, system="x"), "system", "keep only one"),
        (turns(HUMAN, GPT, system=1), "system", "is 1; write a string"),
        (turns(HUMAN, GPT, tools="{"), "tools", "is '{'; write a list"),
        (turns(HUMAN, GPT, tools="[{"), "tools", "is not JSON"),
        (turns(HUMAN, GPT, tools=[{"nam": 1}]), "tools[0].type", "is missing; use 'function'"),
        (
            turns(HUMAN, {"from": "function_call", "value": "weather()"}),
            "conversations[1].value",
            "is not JSON",
        ),
        (turns(HUMAN, called([])), "conversations[1].value", "is an empty list; write an object"),
        (turns(HUMAN, called("x")), "conversations[1].value", "is 'x'; write an object with name"),
        (
            turns(HUMAN, called({"name": "weather", "arguments": [1]})),
            "conversations[1].value.arguments",
            "is a list; write one JSON object",
        ),
        (
            turns(HUMAN, {"from": "observation", "value": "4"}, GPT),
            "conversations[1].from",
            "no call is unanswered; add a function_call before it",
        ),
    ],
)
def test_fault_names_field_and_cure(row: dict[str, Any], field: str, words: str) -> None:
    faults = parse_row(row, "chat")
    assert isinstance(faults, tuple)
    assert faults[0].field == field
    assert faults[0].message.startswith(field + " ")
    assert words in faults[0].message
