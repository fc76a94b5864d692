"""Pairs of answers: every way to write one, and what makes a row no pair."""

from typing import Any

import pytest

from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    PreferenceExample,
    detect_format,
    parse_row,
)

USER = {"role": "user", "content": "How warm is it?"}
GOOD = {"role": "assistant", "content": "4 degrees."}
BAD = {"role": "assistant", "content": "Warm."}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
TOOL = {"type": "function", "function": {"name": "weather"}}

PAIR = PreferenceExample(ChatExample((USER, GOOD)), ChatExample((USER, BAD)))


def turn(message: dict[str, Any]) -> dict[str, Any]:
    """A message as in ShareGPT."""
    speaker = {"user": "human", "assistant": "gpt"}[message["role"]]
    return {"from": speaker, "value": message["content"]}


def result_of(row: dict[str, Any]) -> Any:
    assert detect_format(row) == "preference"
    return parse_row(row, "preference")


@pytest.mark.parametrize(
    "row",
    [
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": GOOD["content"], "rejected": BAD["content"]},
        {"prompt": USER["content"], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": USER["content"], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": USER, "chosen": GOOD, "rejected": BAD},
        {"messages": [USER], "chosen": GOOD, "rejected": BAD},
        {"messages": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"messages": [USER], "chosen": GOOD["content"], "rejected": BAD["content"]},
        {"messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"conversations": [USER], "chosen": GOOD, "rejected": BAD},
        {"conversations": [turn(USER)], "chosen": turn(GOOD), "rejected": turn(BAD)},
        {"conversations": [turn(USER)], "chosen": [turn(GOOD)], "rejected": [turn(BAD)]},
        {"chosen": [turn(USER), turn(GOOD)], "rejected": [turn(USER), turn(BAD)]},
        {
            "instruction": USER["content"],
            "chosen": GOOD["content"],
            "rejected": BAD["content"],
        },
    ],
)
def test_one_pair_of_conversations_is_written_in_many_ways(row: dict[str, Any]) -> None:
    assert result_of(row) == PAIR


def test_assistant_messages_of_the_prompt_are_not_trained() -> None:
    prompt = [USER, {**GOOD, "weight": 1}, USER]
    earlier = {**GOOD, "weight": 0}
    for row in (
        {"input": {"messages": prompt}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"chosen": [*prompt, GOOD], "rejected": [*prompt, BAD]},
    ):
        assert result_of(row) == PreferenceExample(
            ChatExample((USER, earlier, USER, GOOD)), ChatExample((USER, earlier, USER, BAD))
        )


def test_answers_may_go_on_from_a_call_of_the_prompt_or_make_one() -> None:
    rest = {"preferred_output": [RESULT, GOOD], "non_preferred_output": [BAD]}
    [fault] = result_of({"input": {"messages": [USER, CALL], "tools": [TOOL]}, **rest})
    assert fault.field == "preferred_output[0].role"
    example = result_of({"prompt": [USER, CALL, RESULT], "chosen": [GOOD], "rejected": [CALL]})
    assert example.rejected.messages[-1]["tool_calls"][0]["id"] == "c1"
    row = {"prompt": [USER], "chosen": [CALL, RESULT, GOOD], "rejected": [BAD], "tools": [TOOL]}
    example = result_of(row)
    assert [message["role"] for message in example.chosen.messages] == [
        *("user", "assistant", "tool", "assistant")
    ]
    assert example.chosen.tools == example.rejected.tools == (TOOL,)


def test_plain_texts_stay_plain() -> None:
    assert result_of({"prompt": "2+2=", "chosen": "4", "rejected": "5"}) == PreferenceExample(
        CompletionExample("2+2=", "4"), CompletionExample("2+2=", "5")
    )


ASKED = "\n\nHuman: 2+2?\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("The sky is blue.", "The sky is", "The sky"),
        ("Blue.", "Black.", ""),
        ("a b", "a b c", "a"),
        ("a  b", "a  c", "a"),
        ("Paris ", "London", ""),
        (f"{ASKED} Yes, four.", f"{ASKED} Yes, five.", ASKED),
        (f"{ASKED} No.{ASKED} Yes.", f"{ASKED} No.{ASKED} Yes!", f"{ASKED} No.{ASKED}"),
    ],
)
def test_a_prompt_that_is_not_given_is_what_both_begin_with(
    chosen: str, rejected: str, prompt: str
) -> None:
    example = result_of({"chosen": chosen, "rejected": rejected})
    assert example.chosen.prompt == example.rejected.prompt == prompt
    assert prompt + example.chosen.completion == chosen
    assert prompt + example.rejected.completion == rejected


def openai(**changes: Any) -> dict[str, Any]:
    row = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    return row | changes


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (
        openai(non_preferred_output=[GOOD]),
        "non_preferred_output",
        "same answer as",
    ),
    (openai(non_preferred_output=None), "non_preferred_output", "is missing; write a list of"),
    (openai(preferred_output=GOOD), "preferred_output", "is an object; write a list of messages"),
    (
        openai(preferred_output=[USER]),
        "preferred_output[0].role",
        "is 'user' at the start of an answer",
    ),
    (openai(preferred_output=[GOOD, USER]), "preferred_output[1]", "end with role 'assistant'"),
    (openai(input=[USER]), "input", "is a list; write an object with messages"),
    (openai(input={}), "input.messages", "is missing; write a list of messages"),
    (openai(input={"messages": ["x"]}), "input.messages[0]", "is 'x'; write an object with role"),
    (openai(input={"mesages": []}), "input.mesages", "rename it to 'messages'"),
    (openai(input={"messages": [USER], "tools": ["x"]}), "input.tools[0]", "is 'x'; write"),
    (
        openai(input={"messages": [USER], "parallel_tool_calls": 1}),
        "input.parallel_tool_calls",
        "is 1; use true or false",
    ),
    (openai(Input=1, input=None), "Input", "rename it to 'input'"),
    ({"prompt": "x", "chosen": "y", "rejected": "y"}, "rejected", "the same answer as chosen"),
    ({"prompt": [USER], "chosen": [GOOD], "rejected": [GOOD]}, "rejected", "the same answer as"),
    ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "rejected", "the same answer as chosen"),
    ({"prompt": [USER], "chosen": "y", "rejected": "y"}, "rejected", "the same answer as chosen"),
    ({"prompt": "x", "chosen": "y"}, "rejected", "is missing and chosen is 'y'; write both as"),
    ({"prompt": "x", "chosen": "y", "rejected": [BAD]}, "rejected", "write both as text or both"),
    ({"prompt": "x", "chosen": "", "rejected": "y"}, "chosen", "is an empty string"),
    ({"prompt": 1, "chosen": "x", "rejected": "y"}, "prompt", "is 1; write a string"),
    ({"prompt": 1, "chosen": [GOOD], "rejected": [BAD]}, "prompt", "is 1; write a list of"),
    (
        {"prompt": "x", "chosen": "y", "rejected": "z", "tools": [TOOL]},
        "tools",
        "requires messages",
    ),
    ({"chosen": [USER, GOOD], "rejected": [USER, GOOD, USER, BAD]}, "chosen", "a prefix of"),
    (
        {"chosen": ASKED, "rejected": f"{ASKED} 5"},
        "chosen",
        "no answer after the last 'Assistant:'",
    ),
    ({"chosen": [GOOD], "rejected": [BAD]}, "prompt", "is missing; add the messages before"),
    ({"chosen": GOOD, "rejected": BAD}, "prompt", "is missing; add the messages before"),
    (
        {"conversations": [{"from": "man", "value": "x"}], "chosen": turn(GOOD), "rejected": "y"},
        "conversations[0].from",
        "use one of human",
    ),
    (
        {"chosen": [USER, GOOD], "rejected": [{**USER, "content": "?"}, GOOD]},
        "chosen[0].role",
        "after the messages that both share",
    ),
    (
        {"chosen": [USER, {**GOOD, "weight": 0}], "rejected": [USER, BAD]},
        "chosen[1].weight",
        "preference training uses the complete answer; remove it",
    ),
    (
        {"prompt": [USER], "chosen": [{**GOOD, "content": ""}], "rejected": [BAD]},
        "chosen[0].content",
        "is empty; write the answer",
    ),
    (
        {"chosen": [USER, {**GOOD, "content": ""}], "rejected": [USER, BAD]},
        "chosen[1].content",
        "is empty; write the answer",
    ),
]


@pytest.mark.parametrize(("row", "field", "words"), FAULTS)
def test_fault_names_field_and_cure(row: dict[str, Any], field: str, words: str) -> None:
    faults = result_of(row)
    assert isinstance(faults, tuple)
    assert faults[0].field == field
    assert faults[0].message.startswith(field + " ")
    assert words in faults[0].message


def test_a_prompt_given_as_text_may_be_any_message_of_the_user() -> None:
    """As in data sets whose `prompt` is the last question, or stands after a system message."""
    system = {"role": "system", "content": "Be brief."}
    for before in ([system], [system, {**USER, "content": "Hi"}, {**GOOD, "content": "Hello."}]):
        row = {
            "prompt": USER["content"],
            "chosen": [*before, USER, GOOD],
            "rejected": [*before, USER, BAD],
        }
        example = result_of(row)
        assert [message["content"] for message in example.rejected.messages] == [
            *(message["content"] for message in (*before, USER, BAD))
        ]
    faults = result_of(row | {"prompt": "Another question?"})
    assert [fault.field for fault in faults] == ["chosen[0].role", "rejected[0].role"]
