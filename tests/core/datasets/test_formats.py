"""Rows that are accepted, and what becomes of them."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    Example,
    detect_format,
    parse_row,
)
from core.spec.dataset import DatasetFormat

USER = {"role": "user", "content": "How warm is it in Oslo?"}
ANSWER = {"role": "assistant", "content": "4 degrees."}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}


def parsed(row: dict[str, Any]) -> Example:
    format_ = detect_format(row)
    assert format_ is not None
    example = parse_row(row, format_)
    assert not isinstance(example, tuple), example
    return example


def chat(*messages: dict[str, Any], **more: Any) -> ChatExample:
    example = parsed({"messages": list(messages), **more})
    assert isinstance(example, ChatExample)
    return example


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": []}, "chat"),
        ({"messages": [], "prompt": ""}, "chat"),
        ({"prompt": ""}, "prompt-completion"),
        ({"completion": ""}, "prompt-completion"),
        ({"instruction": "", "input": "", "output": ""}, "instruction"),
        ({"instruction": "", "output": "", "messages": None}, "instruction"),
        ({"conversations": []}, "chat"),
        ({"prompt": "", "chosen": ""}, "preference"),
        ({"input": {}, "non_preferred_output": []}, "preference"),
        ({"prompt": "", "completion": "", "label": True}, "unpaired-preference"),
        ({"prompt": "", "completion": "", "label": "False"}, "unpaired-preference"),
        ({"prompt": "", "completion": "", "label": 1}, "unpaired-preference"),
        ({"prompt": "", "completion": "", "label": 2}, "prompt-completion"),
        ({"messages": [], "label": True}, "unpaired-preference"),
        ({"messages": [], "chosen": [], "rejected": []}, "preference"),
        ({"text": ""}, "text"),
        ({"text": "", "label": 0}, "classification"),
        ({"text": "", "labels": []}, "classification"),
        ({"text": "", "label": None}, "text"),
        ({"input": "", "txt": ""}, None),
        ({}, None),
    ],
)
def test_format_is_told_from_the_keys(row: dict[str, Any], expected: str | None) -> None:
    assert detect_format(row) == expected


def test_messages_keep_roles_content_names_and_weights() -> None:
    example = chat(
        {"role": "system", "content": "Be brief."},
        {**USER, "name": "Kari"},
        {**ANSWER, "weight": 0},
        USER,
        {**ANSWER, "weight": 1},
    )
    assert example.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How warm is it in Oslo?", "name": "Kari"},
        {"role": "assistant", "content": "4 degrees.", "weight": 0},
        {"role": "user", "content": "How warm is it in Oslo?"},
        {"role": "assistant", "content": "4 degrees.", "weight": 1},
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "How warm "}, {"type": "text", "text": "is it?"}]
    assert chat({"role": "user", "content": parts}, ANSWER).messages[0]["content"] == (
        "How warm is it?"
    )


def test_developer_becomes_system() -> None:
    example = chat({"role": "developer", "content": "Be brief."}, USER, ANSWER)
    assert example.messages[0] == {"role": "system", "content": "Be brief."}


def test_a_refusal_is_the_answer() -> None:
    example = chat(USER, {"role": "assistant", "content": None, "refusal": "I cannot say."})
    assert example.messages[1] == {"role": "assistant", "content": "I cannot say."}


def test_tool_calls_carry_their_arguments_as_objects() -> None:
    example = chat(USER, CALL, RESULT, ANSWER, tools=[TOOL], parallel_tool_calls=False)
    assert example.tools == (TOOL,)
    assert example.messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Oslo"}},
            }
        ],
    }
    assert example.messages[2] == {"role": "tool", "content": "4", "tool_call_id": "call_1"}


def test_a_conversation_may_end_in_a_tool_call() -> None:
    assert chat(USER, CALL, tools=[TOOL]).messages[-1]["tool_calls"][0]["id"] == "call_1"


def test_older_function_calls_read_as_tool_calls() -> None:
    function_call = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    example = chat(
        USER,
        {"role": "assistant", "function_call": function_call},
        {"role": "function", "name": "weather", "content": "4"},
        ANSWER,
        functions=[TOOL["function"]],
    )
    assert example.tools == (TOOL,)
    call = example.messages[1]["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert example.messages[2] == {
        "role": "tool",
        "content": "4",
        "tool_call_id": call["id"],
        "name": "weather",
    }


def test_nulls_are_the_same_as_missing_keys() -> None:
    nulls = {"name": None, "tool_calls": None, "weight": None, "tool_call_id": None}
    example = chat({**USER, **nulls}, {**ANSWER, **nulls, "refusal": None}, tools=None)
    assert example == chat(USER, ANSWER)


def test_prompt_and_completion_stay_plain_text() -> None:
    example = parsed({"prompt": "Oslo:", "completion": " 4 degrees"})
    assert example == CompletionExample("Oslo:", " 4 degrees")
    assert parsed({"prompt": "", "completion": "x"}) == CompletionExample("", "x")


@pytest.mark.parametrize(
    ("more", "question"),
    [({}, "Translate."), ({"input": ""}, "Translate."), ({"input": "Hei"}, "Translate.\n\nHei")],
)
def test_instruction_rows_become_conversations(more: dict[str, str], question: str) -> None:
    example = parsed({"instruction": "Translate.", **more, "output": "Hello"})
    assert example == ChatExample(
        ({"role": "user", "content": question}, {"role": "assistant", "content": "Hello"})
    )


def test_rows_of_the_documentation_are_accepted() -> None:
    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    blocks = text.split("```jsonl\n")[1:]
    rows = [json.loads(line) for block in blocks for line in block.split("```")[0].splitlines()]
    assert {detect_format(row) for row in rows} == set(get_args(DatasetFormat))
    for row in rows:
        parsed(row)


def test_parsing_leaves_the_row_as_it_was() -> None:
    row = {"messages": [USER, CALL, RESULT, ANSWER], "tools": [TOOL]}
    before = json.dumps(row)
    parsed(row)
    assert json.dumps(row) == before
