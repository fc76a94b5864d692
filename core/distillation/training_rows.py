"""Rows of the training file: prompts with the answers of the teacher, and labelled rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.datasets.examples import ChatExample
from core.datasets.formats import read_row
from core.datasets.layouts import layout_of
from core.datasets.sent import sent_message

Row = dict[str, Any]


def training_row(
    messages: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
) -> Row:
    """Return a row of the chat format in which only `answer` is trained on."""
    earlier = [_untrained(message) for message in messages]
    row: Row = {"messages": [*earlier, dict(answer)]}
    return row | ({"tools": [dict(tool) for tool in tools]} if tools else {})


def fault_of(row: Row) -> str | None:
    """Return why a file with the row could not be trained on; None if it can."""
    layout = layout_of(row)
    if layout is None:
        return "messages: the row has none"
    parsed = read_row(row, layout)
    return parsed.errors[0].message if parsed.errors else None


def labelled_row(example: ChatExample) -> Row:
    """Return the row of a labelled conversation, with its weights."""
    messages = [
        sent_message(message) | ({"weight": message["weight"]} if "weight" in message else {})
        for message in example.messages
    ]
    return {"messages": messages} | ({"tools": list(example.tools)} if example.tools else {})


def _untrained(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "weight": 0} if message.get("role") == "assistant" else dict(message)
