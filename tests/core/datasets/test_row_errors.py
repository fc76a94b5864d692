"""Rows that are refused: each kind of error with its field and its hint."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check import check
from core.datasets.formats import detect_format

USER = {"role": "user", "content": "Hei"}
ANSWER = {"role": "assistant", "content": "Hello"}
GOOD_ROWS: dict[str | None, dict[str, Any]] = {
    "chat": {"messages": [USER, ANSWER]},
    "prompt-completion": {"prompt": "Hei", "completion": "Hello"},
    "instruction": {"instruction": "Translate.", "output": "Hello"},
    None: {"messages": [USER, ANSWER]},
}


def call(**changes: Any) -> dict[str, Any]:
    tool_call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": "{}"},
        **changes,
    }
    return {"role": "assistant", "tool_calls": [tool_call]}


def called(**changes: Any) -> dict[str, Any]:
    return call(function={"name": "weather", "arguments": "{}", **changes})


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", **changes}}


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


FAULTS: list[tuple[dict[str, Any], str | None, list[str]]] = [
    # the row
    ({"mesages": []}, None, ["(mesages)", "no known format", "closest match is 'messages'"]),
    ({"txt": "x", "id": 1}, None, ["(txt, id)", "use 'messages', or", "closest match is 'text'"]),
    ({}, None, ["(none)"]),
    (chat(USER, ANSWER, tool=[]), "tool", ["not a known key", "rename it to 'tools'"]),
    (chat(USER, ANSWER, Functions=[]), "Functions", ["rename it to 'functions'"]),
    (chat(USER, ANSWER, parallel_tool_calls=1), "parallel_tool_calls", ["is 1; use true or"]),
    ({"messages": "Hei"}, "messages", ["is 'Hei'; write a list of messages"]),
    (chat(), "messages", ["is an empty list; write a list of messages"]),
    # messages
    (chat("Hei", ANSWER), "messages[0]", ["is 'Hei'; write an object with role and content"]),
    (
        chat(USER, {**ANSWER, "role": "assitant"}),
        "messages[1].role",
        ["is 'assitant'; use one of system, developer, user, assistant, tool, function"],
    ),
    (chat({"content": "Hei"}, ANSWER), "messages[0].role", ["is missing; use one of"]),
    (chat({**USER, "role": ["user"]}, ANSWER), "messages[0].role", ["is a list"]),
    (chat({"role": "user"}, ANSWER), "messages[0].content", ["is missing; write a string or"]),
    (chat({**USER, "content": 5}, ANSWER), "messages[0].content", ["is 5; write a string or"]),
    (
        chat({**USER, "content": [{"type": "image_url", "image_url": {}}]}, ANSWER),
        "messages[0].content[0].type",
        ["is 'image_url'; only parts of type 'text'"],
    ),
    (chat({**USER, "content": ["Hei"]}, ANSWER), "messages[0].content[0]", ["is 'Hei'; write an"]),
    (
        chat({**USER, "content": [{"type": "text"}]}, ANSWER),
        "messages[0].content[0].text",
        ["is missing; write a string"],
    ),
    (
        chat({**USER, "content": [{"type": "text", "txet": ""}]}, ANSWER),
        "messages[0].content[0].txet",
        ["rename it to 'text'"],
    ),
    (
        chat({"role": "user", "contnet": ""}, ANSWER),
        "messages[0].contnet",
        ["rename it to 'content'"],
    ),
    (chat(USER, {**ANSWER, "wieght": 0}), "messages[1].wieght", ["rename it to 'weight'"]),
    (
        chat(USER, {**ANSWER, "toolCalls": []}),
        "messages[1].toolCalls",
        ["rename it to 'tool_calls'"],
    ),
    (chat({**USER, "name": 7}, ANSWER), "messages[0].name", ["is 7; write a string"]),
    (
        chat({**USER, "weight": 1}, ANSWER),
        "messages[0].weight",
        ["is allowed only in assistant messages, not in user messages; remove it"],
    ),
    (chat(USER, {**ANSWER, "weight": 0.5}), "messages[1].weight", ["is 0.5; use 1 to train on"]),
    (chat(USER, {**ANSWER, "weight": 2}), "messages[1].weight", ["is 2; use 1"]),
    (chat(USER, {**ANSWER, "weight": True}), "messages[1].weight", ["is true; use 1"]),
    (chat(USER, {**ANSWER, "weight": "1"}), "messages[1].weight", ["is '1'; use 1"]),
    (chat(USER, {"role": "assistant"}), "messages[1].content", ["is missing; write a string"]),
    (chat(USER, {**ANSWER, "content": ""}), "messages[1].content", ["is empty; write the answer"]),
    # something to train
    (chat(USER), "messages", ["has no assistant message; add the answer"]),
    (chat(USER, ANSWER, USER), "messages[2]", ["is the last message", "end with role 'assistant'"]),
    (chat(USER, {**ANSWER, "weight": 0}), "messages", ["trains nothing", "set one to 1"]),
    # tool calls
    (chat(USER, {**ANSWER, "tool_calls": {}}), "messages[1].tool_calls", ["is an object; write"]),
    (
        chat(USER, {**ANSWER, "tool_calls": ["x"]}),
        "messages[1].tool_calls[0]",
        ["is 'x'; write an object with id, type and function"],
    ),
    (chat(USER, call(id=7)), "messages[1].tool_calls[0].id", ["is 7; write a string"]),
    (chat(USER, call(type="fn")), "messages[1].tool_calls[0].type", ["is 'fn'; use 'function'"]),
    (
        chat(USER, {"role": "assistant", "tool_calls": [{"id": "a", "typ": "function"}]}),
        "messages[1].tool_calls[0].typ",
        ["rename it to 'type'"],
    ),
    (chat(USER, call(function=1)), "messages[1].tool_calls[0].function", ["is 1; write an object"]),
    (
        chat(USER, called(name="get weather")),
        "messages[1].tool_calls[0].function.name",
        ["is 'get weather'; use 1 to 64 letters, digits"],
    ),
    (
        chat(USER, called(arguments=[1])),
        "messages[1].tool_calls[0].function.arguments",
        ["is a list; write one JSON object as a string"],
    ),
    (
        chat(USER, called(arguments="x")),
        "messages[1].tool_calls[0].function.arguments",
        ["is not JSON: Expecting value at character 1; write one complete JSON object"],
    ),
    (
        chat(USER, called(arguments='{"a": NaN}')),
        "messages[1].tool_calls[0].function.arguments",
        ["NaN is not JSON; use null"],
    ),
    (
        chat(USER, called(arguments="[1]")),
        "messages[1].tool_calls[0].function.arguments",
        ["contains JSON that is a list; write one JSON object"],
    ),
    (
        chat(USER, {"role": "assistant", "function_call": "weather"}),
        "messages[1].function_call",
        ["is 'weather'; write an object with name and arguments"],
    ),
    # their answers
    (
        chat(USER, call(), {"role": "tool", "content": "4"}, ANSWER),
        "messages[2].tool_call_id",
        ["is missing; write a string"],
    ),
    (
        chat(USER, call(), {"role": "tool", "content": "4", "tool_call_id": "call_2"}, ANSWER),
        "messages[2].tool_call_id",
        ["is 'call_2', but no earlier tool call has it; the closest match is 'call_1'"],
    ),
    (
        chat({"role": "tool", "content": "4", "tool_call_id": "call_1"}, call()),
        "messages[0].tool_call_id",
        ["but no earlier tool call has it; use the id of"],
    ),
    (
        chat(USER, {"role": "function", "content": "4", "name": "weather"}, ANSWER),
        "messages[1].name",
        ["is 'weather', but no earlier function_call has it; use the name of"],
    ),
    # tools
    (chat(USER, ANSWER, tools={}), "tools", ["is an object; write a list"]),
    (chat(USER, ANSWER, tools=["x"]), "tools[0]", ["is 'x'; write an object with type and"]),
    (chat(USER, ANSWER, tools=[{**tool(), "type": "web"}]), "tools[0].type", ["use 'function'"]),
    (chat(USER, ANSWER, tools=[{"type": "function"}]), "tools[0].function", ["is missing; write"]),
    (chat(USER, ANSWER, tools=[tool(name=None)]), "tools[0].function.name", ["is missing"]),
    (
        chat(USER, ANSWER, tools=[tool(parameters="none")]),
        "tools[0].function.parameters",
        ["is 'none'; write a JSON schema object"],
    ),
    (
        chat(USER, ANSWER, tools=[tool(description=[1])]),
        "tools[0].function.description",
        ["is a list; write a string"],
    ),
    (chat(USER, ANSWER, tools=[tool(strict="yes")]), "tools[0].function.strict", ["use true or"]),
    (
        chat(USER, ANSWER, tools=[tool(paramters={})]),
        "tools[0].function.paramters",
        ["rename it to 'parameters'"],
    ),
    (chat(USER, ANSWER, functions=[1]), "functions[0]", ["is 1; write an object with name"]),
    # prompt and completion
    ({"prompt": "x"}, "completion", ["is missing; write a string"]),
    ({"completion": "x"}, "prompt", ["is missing; write a string"]),
    ({"prompt": "x", "completion": ""}, "completion", ["is an empty string; write some text"]),
    ({"prompt": ["x"], "completion": "y"}, "prompt[0]", ["is 'x'; write an object with role"]),
    (
        {"prompt": "x", "completions": "y"},
        "completions",
        ["rename it to 'completion'"],
    ),
    # instruction
    ({"instruction": "x"}, "output", ["is missing; write a string"]),
    ({"output": "x"}, "instruction", ["is missing; write a string"]),
    ({"instruction": "x", "input": 3, "output": "y"}, "input", ["is 3; write a string"]),
    ({"instruction": "x", "ouput": "y"}, "ouput", ["rename it to 'output'"]),
]


@pytest.mark.parametrize(("row", "field", "words"), FAULTS)
def test_fault_names_line_field_and_cure(
    row: dict[str, Any], field: str | None, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    lines = [GOOD_ROWS[detect_format(row)], row]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = check(path)
    assert not report.usable
    assert report.rows == 1
    fault = report.faults[0]
    assert (fault.line, fault.field) == (2, field)
    for word in words:
        assert word in fault.message
    if field is not None:
        assert fault.message.startswith(field + " ")


def errors_of(row: dict[str, Any], path: Path) -> list[str | None]:
    path.write_text(json.dumps(row))
    return [fault.field for fault in check(path).faults]


def test_all_errors_of_a_row_are_reported(tmp_path: Path) -> None:
    row = chat({"role": "user"}, {**ANSWER, "weight": 3}, tools=[tool(strict=1)], function=1)
    assert errors_of(row, tmp_path / "x") == [
        "function",
        "messages[0].content",
        "messages[1].weight",
        "tools[0].function.strict",
    ]


def test_one_mistake_is_one_fault(tmp_path: Path) -> None:
    for row in (
        chat(USER, {**ANSWER, "role": "assitant"}),
        chat(USER, {**ANSWER, "content": 5}),
        chat(USER, {**ANSWER, "content": [{"type": "image_url"}]}),
        chat(USER, {"role": "assistant"}),
        chat(USER),
    ):
        assert len(errors_of(row, tmp_path / "x")) == 1


def test_a_row_stops_at_twenty_faults(tmp_path: Path) -> None:
    assert len(errors_of(chat(*[{}] * 1000), tmp_path / "x")) == 20


def test_long_values_and_keys_are_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps(chat({"role": "r" * 10_000}, {**ANSWER, "k" * 10_000: 1})))
    for fault in check(path).faults:
        assert len(fault.message) < 300
        assert len(fault.field or "") < 100
