"""Detects the parts of a conversation that a chat template omits.

Many templates silently drop parts of messages: tools, calls, or the text beside a call. Two checks
detect this. First, the template renders messages of the same shape whose texts are unique words; a
missing word is an omitted part. Second, the rendered text must contain the texts of the real
messages.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from core.batching.template_input import Message

_MARKER = re.compile(r"marker\d+")

Part = tuple[str, str]
"""The path of a part, such as `messages[1].tool_calls`, and its text."""


def shape_of(messages: Sequence[Message], tools: Sequence[Message]) -> tuple[Any, ...]:
    """Return the shape of a conversation, equal for messages that differ only in their texts."""
    return (
        *(
            (
                message["role"],
                bool(message["content"].strip()),
                bool(message.get("reasoning_content")),
                tuple(bool(call["function"]["arguments"]) for call in _calls(message)),
            )
            for message in messages
        ),
        len(tools),
    )


def marked_conversation(
    messages: Sequence[Message], tools: Sequence[Message]
) -> tuple[list[Message], list[Message]]:
    """Return messages and tools of the same shape in which every text is a unique word."""
    words = (f"marker{number}" for number in count())
    functions = [f"function_{next(words)}" for _ in tools] or [f"function_{next(words)}"]
    parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
    marked = [_marked(message, words, functions[0]) for message in messages]
    marked_tools: list[Message] = [
        {
            "type": "function",
            "function": {"name": name, "description": next(words), "parameters": parameters},
        }
        for name in functions
    ]
    return marked, marked_tools if tools else []


def _marked(message: Message, words: Iterator[str], function: str) -> Message:
    marked = dict(message)
    if message["content"].strip():
        marked["content"] = f"{next(words)} text"
    if message.get("reasoning_content"):
        marked["reasoning_content"] = f"{next(words)} thought"
    if calls := _calls(message):
        marked["tool_calls"] = [
            {
                **call,
                "function": {
                    "name": function,
                    "arguments": {"name": next(words)} if call["function"]["arguments"] else {},
                },
            }
            for call in calls
        ]
    return marked


def after_marker(text: str) -> str:
    """Return the text after the last marker word."""
    ends = [found.end() for found in _MARKER.finditer(text)]
    return text[ends[-1] :] if ends else ""


def parts_of(
    messages: Sequence[Message], tools: Sequence[Message] = (), first: int = 0
) -> Iterator[Part]:
    """Yield the parts of messages that a prompt must contain, without reasoning.

    `first` is the index of the first message in its conversation.
    """
    for index, tool in enumerate(tools):
        yield f"tools[{index}]", tool["function"]["name"]
    for index, message in enumerate(messages, start=first):
        where = f"messages[{index}]"
        if content := message["content"].strip():
            yield f"{where}.content", content
        for number, call in enumerate(_calls(message)):
            path = f"{where}.tool_calls[{number}]"
            yield path, call["function"]["name"]
            for text in _texts(call["function"]["arguments"]):
                yield path, text


def reasoning_of(message: Message, index: int) -> Iterator[Part]:
    """Yield the reasoning of a message, which the template must show in that turn."""
    if reasoning := message.get("reasoning_content", "").strip():
        yield f"messages[{index}].reasoning_content", reasoning


def omitted(parts: Iterator[Part], text: str) -> str | None:
    """Return the path of the first part that `text` does not contain, or None."""
    position = 0
    for path, part in parts:
        found = text.find(part, position)
        if found >= 0:  # parts usually come in order, which keeps this linear
            position = found
        elif part not in text and not any(escaped in text for escaped in _escaped(part)):
            return path
    return None


def _calls(message: Message) -> Sequence[Message]:
    return message.get("tool_calls") or ()


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings in arguments: keys and values."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _escaped(part: str) -> Iterator[str]:
    """Yield the escaped forms of a part in JSON and Python strings."""
    yield json.dumps(part, ensure_ascii=False)[1:-1]
    yield json.dumps(part)[1:-1]
    yield repr(part)[1:-1]
