"""What an assistant thought, whichever way it is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check import check
from core.datasets.formats import ChatExample, parse_row, read_row
from core.datasets.layouts import layout_of

USER = {"role": "user", "content": "1+1?"}
BOTH = {"role": "assistant", "content": "2", "reasoning_content": "One and one."}


def answer(row: dict[str, Any]) -> dict[str, Any]:
    example = parse_row(row, "chat" if "messages" in row else "instruction")
    assert isinstance(example, ChatExample), example
    return example.messages[-1]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "2", "reasoning_content": "One and one."},
        {"content": "2", "reasoning_content": "\n\nOne and one.\r\n"},
        {"content": "2", "reasoning": "One and one."},
        {"content": "2", "thinking": "One and one."},
        {"content": "2", "reasoning": "One and one.", "reasoning_content": "One and one."},
        {"content": "<think>One and one.</think>2"},
        {"content": " \n<think>\nOne and one.\n</think>\n\n2"},
        {"content": "One and one.\n</think>\n\n2"},
        {
            "content": [
                {"type": "thinking", "thinking": "One and one.", "signature": "x"},
                {"type": "text", "text": "2"},
            ]
        },
        {"content": [{"type": "reasoning", "text": "One and one."}, {"type": "text", "text": "2"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "One and one."}]},
                {"type": "text", "text": "2"},
            ]
        },
    ],
)
def test_every_way_of_writing_it_comes_out_the_same(message: dict[str, Any]) -> None:
    assert answer({"messages": [USER, {"role": "assistant", **message}]}) == BOTH


@pytest.mark.parametrize(
    "content",
    [
        "<think>One and one. 2",
        "2 <think>One.</think>",
        "The tag <think> opens.",
        "</think>2",
        "Split at `</think>`.\n2",
    ],
)
def test_any_other_tag_is_plain_content(content: str) -> None:
    assert answer({"messages": [USER, {"role": "assistant", "content": content}]}) == {
        "role": "assistant",
        "content": content,
    }


def test_a_block_beside_given_reasoning_stays_in_the_content() -> None:
    message = {"role": "assistant", "content": "<think>a</think>b", "reasoning_content": "c"}
    assert answer({"messages": [USER, message]}) == message


def test_an_empty_block_is_empty_reasoning() -> None:
    content = "<think>\n\n</think>\n\n2"
    assert answer({"messages": [USER, {"role": "assistant", "content": content}]}) == {
        **BOTH,
        "reasoning_content": "",
    }


def test_what_is_parsed_parses_as_it_is() -> None:
    """The replay of a row sends it to the endpoint as it was parsed."""
    content = "<think>a</think>\n<think>b</think>c"
    first = answer({"messages": [USER, {"role": "assistant", "content": content}]})
    assert first["content"] == "<think>b</think>c"
    assert answer({"messages": [USER, first]}) == first


def test_instructions_and_turns_may_have_it() -> None:
    assert answer({"instruction": "1+1?", "output": "<think>One and one.</think>2"}) == BOTH
    turns = [
        {"from": "human", "value": "1+1?"},
        {"from": "gpt", "value": "<think>One and one.</think>2"},
    ]
    example = parse_row({"conversations": turns}, "chat")
    assert isinstance(example, ChatExample)
    assert example.messages[-1] == BOTH


def test_that_of_other_roles_is_not_used() -> None:
    thoughtful = {**USER, "content": "<think>x</think>1+1?", "reasoning_content": "y"}
    row = {"messages": [thoughtful, BOTH]}
    form = layout_of(row)
    assert form is not None
    parsed = read_row(row, form)
    assert isinstance(parsed.example, ChatExample)
    assert parsed.example.messages[0] == {"role": "user", "content": "<think>x</think>1+1?"}
    assert parsed.unused == ("messages[].reasoning_content",)


def test_reasoning_without_an_answer_is_a_fault() -> None:
    message = {"role": "assistant", "content": "<think>x</think>"}
    [fault] = parse_row({"messages": [USER, message]}, "chat")  # type: ignore[misc]
    assert fault.field == "messages[1].content"


def test_reasoning_that_is_no_text_is_a_fault_or_not_used() -> None:
    faults = parse_row({"messages": [USER, {**BOTH, "reasoning_content": 1}]}, "chat")
    assert isinstance(faults, tuple)
    assert faults[0].field == "messages[1].reasoning_content"
    details = {"role": "assistant", "content": "2", "reasoning": {"effort": "low"}}
    assert answer({"messages": [USER, details]}) == {"role": "assistant", "content": "2"}


def test_it_counts_as_text_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps({"messages": [USER, BOTH]}))
    assert check(path).longest_characters == len("1+1?2One and one.")


def test_an_answer_that_ended_within_its_reasoning_can_be_sent_back() -> None:
    ended = {"role": "assistant", "content": None, "reasoning_content": "One and"}
    messages = [USER, ended, USER, {"role": "assistant", "content": "2"}]
    example = parse_row({"messages": messages}, "chat")
    assert not isinstance(example, ChatExample), "nothing of it could be trained"
    messages[1] = {**ended, "weight": 0}
    example = parse_row({"messages": messages}, "chat")
    assert isinstance(example, ChatExample)
    assert example.messages[1]["content"] == ""
