"""Parses ShareGPT conversations into the same messages as OpenAI's chat format.

`human`, `gpt` and `system` are user, assistant and system. `function_call` holds one or more tool
calls as JSON; each `observation` answers the next unanswered call. `tool` is a tool message too,
but needs no call: some datasets write their calls into the text.

Other datasets use the key `conversations` for messages with `role` and `content`, or for plain
texts of user and assistant in turn.
"""

from collections import deque

from core.datasets.chat import parse_conversation, require_answer, weight_of, with_system
from core.datasets.json_values import JsonObject, Row
from core.datasets.reasoning import assistant_message
from core.datasets.row_errors import RowErrors, describe
from core.datasets.tools import Calls, parse_tools, parse_written_calls

_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "user": "user",
    "assistant": "assistant",
    "chatgpt": "assistant",
}
_SHOWN_SPEAKERS = ("human", "gpt", "system", "function_call", "observation", "tool")

Messages = tuple[JsonObject, ...]


def parse_conversations(row: Row, errors: RowErrors) -> tuple[Messages, Messages]:
    """Return messages ready for a template, and tools; add errors for what cannot be trained on."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        errors.add("conversations", f"{describe(turns)}; write a list of turns")
        return (), ()
    if isinstance(turns[0], str):
        parsed = alternating(turns, "conversations", errors)
    elif isinstance(turns[0], dict) and turns[0].get("role") is not None:
        parsed = parse_conversation(turns, errors, "conversations")
    else:
        parsed = parse_turns(turns, "conversations", Calls(), errors)
    require_answer(parsed, errors, "conversations")
    parsed = with_system(row, parsed, "conversations", errors)
    return parsed, parse_tools({"tools": wrapped(row.get("tools"))}, errors)


def alternating(texts: list[object], where: str, errors: RowErrors) -> Messages:
    """Return the texts of user and assistant in turn as messages."""
    messages: list[JsonObject] = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            errors.add(
                f"{where}[{index}]", f"{describe(text)}; write a string, as in the other entries"
            )
            messages.append({})
        else:
            messages.append(
                assistant_message(text) if index % 2 else {"role": "user", "content": text}
            )
    return tuple(messages)


def wrapped(tools: object) -> object:
    """Return the list with each bare function wrapped as a tool."""
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and "function" not in tool
        else tool
        for tool in tools
    ]


def with_wrapped_tools(row: Row) -> JsonObject:
    """Return the row with each bare function of its tools wrapped as a tool."""
    return {**row, "tools": wrapped(row.get("tools"))}


def parse_turns(turns: list[object], where: str, calls: Calls, errors: RowErrors) -> Messages:
    """Return turns of `from` and `value` at path `where` as messages; new calls go to `calls`."""
    unanswered: deque[str] = deque()
    return tuple(
        _parse_turn(turn, f"{where}[{index}]", calls, unanswered, errors)
        for index, turn in enumerate(turns)
    )


def _parse_turn(
    turn: object, where: str, calls: Calls, unanswered: deque[str], errors: RowErrors
) -> JsonObject:
    if not isinstance(turn, dict):
        errors.add(where, f"{describe(turn)}; write an object with from and value")
        return {}
    turn = {key: value for key, value in turn.items() if value is not None}
    errors.unknown_keys(turn, ("from", "value", "weight"), where)
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        errors.add(f"{where}.from", f"{describe(speaker)}; use one of {', '.join(_SHOWN_SPEAKERS)}")
        return {}
    role = _SPEAKERS[speaker]
    answers = role == "assistant"
    text = errors.text(turn, "value", where, empty=not answers)
    match role:
        case "tool":
            return _parse_result(text, speaker, where, unanswered, errors)
        case "assistant":
            message = assistant_message(text)
            if speaker == "function_call":
                tool_calls = parse_written_calls(text, f"{where}.value", calls, errors)
                unanswered.extend(call["id"] for call in tool_calls)
                message = {"role": role, "content": "", "tool_calls": tool_calls}
            if "weight" in turn:
                message["weight"] = weight_of(turn, where, errors)
            return message
        case _:
            return {"role": role, "content": text}


def _parse_result(
    text: str, speaker: str, where: str, unanswered: deque[str], errors: RowErrors
) -> JsonObject:
    message = {"role": "tool", "content": text}
    if unanswered:
        message["tool_call_id"] = unanswered.popleft()
    elif speaker == "observation":
        hint = "add a function_call before it, or use 'tool'"
        errors.add(f"{where}.from", f"is 'observation', but no call is unanswered; {hint}")
    return message
