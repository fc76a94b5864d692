"""The text of a conversation, from the parts of a chat template.

This is what the Go template of `go_template.py` writes, step for step; the tests compare both.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.exports.gguf.chat_shape import Calls, ChatShape, Position
from core.exports.gguf.go_json import arguments_text, escaped, tool_text
from core.exports.gguf.segments import Segments, Slot

Message = Mapping[str, Any]


def chat_text(
    shape: ChatShape, messages: Sequence[Message], tools: Sequence[Message] = ()
) -> str | None:
    """Return the prompt of the next answer; None if the parts cannot express the conversation."""
    try:
        return "".join(_parts(shape, messages, tools))
    except _Inexpressible:
        return None


class _Inexpressible(Exception):
    """The template lacks a part that the conversation needs."""


def _parts(
    shape: ChatShape, messages: Sequence[Message], tools: Sequence[Message]
) -> Iterator[str]:
    system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
    messages = _joined(messages)
    users = [index for index, each in enumerate(messages) if each["role"] == "user"]
    after_result = False
    for index, message in enumerate(messages):
        role = message["role"]
        if after_result and role != "tool" and shape.results:
            yield _filled(shape.results.close)
        if role == "user":
            position = Position(index == users[0], index == users[-1], bool(system), bool(tools))
            yield _lead(shape, position, system, tools)
            yield message["content"] + shape.user_end
        elif role == "assistant":
            yield from _assistant(shape, message)
        elif role == "tool":
            yield _result(shape, message, after_result)
        after_result = role == "tool"
    if after_result and shape.results:
        yield _filled(shape.results.close)
    yield shape.header


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Join neighbors of one role, as Ollama does before it renders. Results of tools stay apart."""
    found: list[Message] = []
    for message in messages:
        if found and message["role"] == found[-1]["role"] != "tool":
            text = f"{found[-1]['content']}\n\n{message['content']}"
            found[-1] = {**found[-1], "content": text}
        else:
            found.append(message)
    return found


def _lead(shape: ChatShape, position: Position, system: str, tools: Sequence[Message]) -> str:
    if position not in shape.leads:
        raise _Inexpressible
    listed = ""
    if how := shape.tools:
        texts = (tool_text(how.style, tool, whole=how.whole) for tool in tools)
        listed = how.between.join(texts)
    return _filled(shape.leads[position], {Slot.SYSTEM: system, Slot.TOOLS: listed})


def _assistant(shape: ChatShape, message: Message) -> Iterator[str]:
    text, called = message["content"], message.get("tool_calls") or ()
    if not called:
        yield shape.start + text + shape.end
        return
    how = shape.calls
    if how is None or (text and how.after_text is None) or (len(called) > 1 and not how.between):
        raise _Inexpressible
    yield how.start + text
    for number, call in enumerate(called):
        yield _call(how, call, _opening(how, bool(text), number))
    yield _filled(how.close)


def _opening(how: Calls, has_text: bool, number: int) -> Segments:
    if number and how.between is not None:
        return how.between
    return how.after_text if has_text and how.after_text is not None else how.opening


def _call(how: Calls, call: Message, opening: Segments) -> str:
    function, values = call["function"], {Slot.ID: call["id"]}
    arguments = arguments_text(how.style, function["arguments"])
    end = _filled(how.end, values)
    return f"{_filled(opening, values)}{function['name']}{how.middle}{arguments}{end}"


def _result(shape: ChatShape, message: Message, after_result: bool) -> str:
    how = shape.results
    if how is None:
        raise _Inexpressible
    values = {Slot.ID: message["tool_call_id"]}
    opening = how.between if after_result else how.opening
    content = message["content"]
    if how.quoted:
        content = escaped(json.dumps(content, ensure_ascii=False))
    return _filled(opening, values) + content + _filled(how.end, values)


def _filled(segments: Segments, values: Mapping[Slot, str] | None = None) -> str:
    return "".join((values or {})[each] if isinstance(each, Slot) else each for each in segments)
