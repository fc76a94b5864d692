"""The input format that one chat template expects.

Templates differ in details of OpenAI's format: call arguments as an object or as JSON text, empty
content beside a call as "" or null, text as a string or as a list of parts, any ids or only ids of
nine letters and digits. The format of a template is inferred by rendering known messages.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import product
from typing import Any

from core.datasets.tools import without_nulls

Message = Mapping[str, Any]

_NINE = 9
"""The length of the ids that Mistral's templates accept."""


@dataclass(frozen=True)
class InputFormat:
    """The input format of one chat template."""

    parts: bool = False
    """Content is a list of parts."""
    null_content: bool = False
    """Content is null in messages that have only calls."""
    text_arguments: bool = False
    """The arguments of a call are JSON text."""
    short_ids: bool = False
    """Ids of calls are nine letters and digits."""
    complete_tools: bool = False
    """Every tool has a description and parameters."""

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Convert messages from `core/datasets/chat.py` to this format."""
        names: dict[str, str] = {}
        return [self._message(message, names) for message in messages]

    def tools(self, tools: Sequence[Message]) -> list[Any]:
        """Convert tool definitions to this format, without nulls."""
        defined = [without_nulls(tool) for tool in tools]
        if not self.complete_tools:
            return defined
        return [
            {**tool, "function": {**tool["function"], **_lacking(tool["function"])}}
            for tool in defined
        ]

    def _message(self, message: Message, names: dict[str, str]) -> dict[str, Any]:
        given = {key: value for key, value in message.items() if key != "weight"}
        if calls := message.get("tool_calls"):
            names.update((call["id"], call["function"]["name"]) for call in calls)
            given["tool_calls"] = [self._call(call) for call in calls]
        if reasoning := message.get("reasoning_content"):
            given["thinking"] = given["reasoning"] = reasoning  # keys of other templates
        if (answered := message.get("tool_call_id")) is not None:
            given["tool_call_id"] = self._id(answered)
            given.setdefault("name", names.get(answered, ""))
        content = message["content"]
        if self.null_content and content == "" and calls:
            given["content"] = None
        elif self.parts:
            given["content"] = [{"type": "text", "text": content}] if content else []
        return given

    def _call(self, call: Message) -> dict[str, Any]:
        function = dict(call["function"])
        if self.text_arguments:
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        return {**call, "id": self._id(call["id"]), "function": function}

    def _id(self, id_: str) -> str:
        if not self.short_ids or (len(id_) == _NINE and id_.isascii() and id_.isalnum()):
            return id_
        return blake2b(id_.encode(), digest_size=8).hexdigest()[:_NINE]


_EMPTY_DEFINITION = {"description": "", "parameters": {"type": "object", "properties": {}}}


def _lacking(function: Message) -> dict[str, Any]:
    return {key: value for key, value in _EMPTY_DEFINITION.items() if key not in function}


_QUESTION = {"role": "user", "content": "probe_question"}
_ANSWER: Message = {"role": "assistant", "content": "probe_answer"}
_CALL = {
    "id": "call_0123456789abcdef",
    "type": "function",
    "function": {
        "name": "probe_function",
        "arguments": {"probe_key": "probe_value", "probe_flag": True},
    },
}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT: Message = {"role": "tool", "content": "probe_result", "tool_call_id": _CALL["id"]}
_TOOL = {"type": "function", "function": {"name": "probe_tool"}}

Render = Callable[[InputFormat, Sequence[Message], Sequence[Message]], str | None]
"""Renders messages and tools in an input format; None if the template rejects them."""


def find_input_format(render: Render) -> InputFormat:
    """Return the format with which a template renders most of a conversation with a call."""
    plain = InputFormat(
        parts=not _shows(InputFormat(), render) and _shows(InputFormat(parts=True), render)
    )
    flags = sorted(product((False, True), repeat=3), key=sum)
    formats = [InputFormat(plain.parts, *each) for each in flags]
    texts = [(format_, text) for format_ in formats if (text := _with_call(format_, render))]
    # models were not trained on Python dicts, or on JSON inside a JSON string
    right = [
        format_
        for format_, text in texts
        if "'probe_key'" not in text and '\\"probe_key' not in text
    ]
    format_ = next(iter([*right, *(format_ for format_, _ in texts), plain]))
    if render(format_, [_QUESTION], [_TOOL]) is None:
        format_ = replace(format_, complete_tools=True)
    return format_


def _shows(format_: InputFormat, render: Render) -> bool:
    text = render(format_, [_QUESTION, _ANSWER], []) or ""
    return "probe_question" in text and "probe_answer" in text


def _with_call(format_: InputFormat, render: Render) -> str | None:
    """Render the longest conversation with a call that the template shows completely, or None."""
    for rest in ([_RESULT, _ANSWER], [_RESULT], []):
        text = render(format_, [_QUESTION, _CALLING, *rest], []) or ""
        told = ["probe_function", "probe_key", "probe_value"]
        if all(each in text for each in [*told, *(str(message["content"]) for message in rest)]):
            return text
    return None
