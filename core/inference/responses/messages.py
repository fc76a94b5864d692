"""Turns the items of a conversation into the messages of a chat."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import InvalidRequest
from core.inference.responses.items import Item

Message = dict[str, Any]

_SYSTEM = ("system", "developer")

_END_OF_THOUGHT = "</think>"


def chat_messages(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """Return the messages for a chat template; InvalidRequest if there is none.

    The instructions and the system messages at the start become one message, since few templates
    accept several. Reasoning, text and calls of one turn become one message of the assistant.
    """
    messages = list(_merged(items))
    opening = [instructions] if instructions else []
    while messages and messages[0]["role"] in _SYSTEM:
        opening.append(messages.pop(0)["content"])
    if not messages:
        raise InvalidRequest(
            "input has no message of the user. Send a string or a list of items.",
            param="input",
            code="missing_required_parameter",
        )
    system = "\n\n".join(text for text in opening if text)
    return [{"role": "system", "content": system}, *messages] if system else messages


def _merged(items: Iterable[Item]) -> Iterator[Message]:
    """Yield the messages of the items, in which an assistant's turn is one message."""
    turn = _Turn()
    call_ids: set[str] = set()
    for item in items:
        if not turn.takes(item):
            yield from turn.messages()
            turn = _Turn()
        match item["type"]:
            case "reasoning":
                turn.reasoning += reasoning_text(item)
            case "function_call":
                call_ids.add(item["call_id"])
                turn.calls.append(_call(item))
            case "function_call_output":
                yield _output(item, call_ids)
            case _ if item["role"] == "assistant":
                turn.text = (turn.text or "") + text_of(item)
            case _:
                yield {"role": item["role"], "content": text_of(item)}
    yield from turn.messages()


@dataclass
class _Turn:
    """The items of an assistant's turn: reasoning, then a text, then calls."""

    reasoning: str = ""
    text: str | None = None
    calls: list[Message] = field(default_factory=list)

    @property
    def has_answer(self) -> bool:
        """Some clients send the reasoning back as a message of its own, in `<think>` tags."""
        is_thought = self.text is not None and self.text.rstrip().endswith(_END_OF_THOUGHT)
        return bool(self.calls) or (self.text is not None and not is_thought)

    def takes(self, item: Item) -> bool:
        """Return whether an item belongs to the same turn."""
        is_said = item["type"] == "reasoning" or item.get("role") == "assistant"
        return item["type"] == "function_call" or (is_said and not self.has_answer)

    def messages(self) -> list[Message]:
        """Return the message of the turn. Reasoning without an answer is left out."""
        if self.text is None and not self.calls:
            return []
        message: Message = {"role": "assistant", "content": self.text or ""}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        return [message]


def text_of(item: Item) -> str:
    """Return the text of a message."""
    return "".join(part["text"] for part in item["content"])


def reasoning_text(item: Item) -> str:
    """Return the text of a reasoning item, from its content or its summary."""
    return "".join(part["text"] for part in item.get("content") or item["summary"])


def _call(item: Item) -> Message:
    return {
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": item["arguments"]},
    }


def _output(item: Item, call_ids: set[str]) -> Message:
    if item["call_id"] not in call_ids:
        raise InvalidRequest(
            f"No function call with call_id {item['call_id']!r} comes before its output. Send the "
            "function_call item too, or previous_response_id.",
            param="input",
            code="invalid_value",
        )
    return {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
