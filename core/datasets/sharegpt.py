"""ShareGPT's conversations, read into the same messages as OpenAI's form.

`human`, `gpt` and `system` are user, assistant and system. `function_call` holds a call, or a
list of calls, as JSON; `observation` answers the calls before it in their order. `tool` is an
answer as well, and may stand alone: some data sets write their calls into the text.

Other data sets write something else under this name: messages with `role` and `content`, or mere
texts of user and assistant in turn.
"""

from collections import deque
from typing import Any

from core.datasets.chat import parse_conversation, require_answer, weight_of, with_system
from core.datasets.faults import Faults, is_what
from core.datasets.json_values import JsonObject, Row
from core.datasets.reasoning import assistant_message
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


def parse_conversations(row: Row, faults: Faults) -> tuple[Messages, Messages]:
    """Return messages ready for a template, and tools; note what keeps them from training."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        faults.add("conversations", f"{is_what(turns)}; write a list of turns")
        return (), ()
    if isinstance(turns[0], str):
        parsed = alternating(turns, "conversations", faults)
    elif isinstance(turns[0], dict) and turns[0].get("role") is not None:
        parsed = parse_conversation(turns, faults, "conversations")
    else:
        parsed = _parse_turns(turns, faults)
    require_answer(parsed, faults, "conversations")
    parsed = with_system(row, parsed, "conversations", faults)
    return parsed, parse_tools({"tools": wrapped(row.get("tools"))}, faults)


def alternating(texts: list[object], where: str, faults: Faults) -> Messages:
    """Return the texts of user and assistant in turn as messages."""
    messages: list[JsonObject] = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            faults.add(f"{where}[{index}]", f"{is_what(text)}; write a string, as before")
            messages.append({})
        else:
            messages.append(
                assistant_message(text) if index % 2 else {"role": "user", "content": text}
            )
    return tuple(messages)


def wrapped(tools: object) -> Any:
    """Return functions that stand in the list without their wrapping as tools."""
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and "function" not in tool
        else tool
        for tool in tools
    ]


def _parse_turns(turns: list[object], faults: Faults) -> Messages:
    calls = Calls()
    unanswered: deque[str] = deque()
    return tuple(
        _parse_turn(turn, f"conversations[{index}]", calls, unanswered, faults)
        for index, turn in enumerate(turns)
    )


def _parse_turn(
    turn: object, where: str, calls: Calls, unanswered: deque[str], faults: Faults
) -> JsonObject:
    if not isinstance(turn, dict):
        faults.add(where, f"{is_what(turn)}; write an object with from and value")
        return {}
    turn = {key: value for key, value in turn.items() if value is not None}
    faults.unknown_keys(turn, ("from", "value", "weight"), where)
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        faults.add(f"{where}.from", f"{is_what(speaker)}; use one of {', '.join(_SHOWN_SPEAKERS)}")
        return {}
    role = _SPEAKERS[speaker]
    answers = role == "assistant"
    text = faults.text(turn, "value", where, empty=not answers)
    match role:
        case "tool":
            return _parse_result(text, speaker, where, unanswered, faults)
        case "assistant":
            message = assistant_message(text)
            if speaker == "function_call":
                tool_calls = parse_written_calls(text, f"{where}.value", calls, faults)
                unanswered.extend(call["id"] for call in tool_calls)
                message = {"role": role, "content": "", "tool_calls": tool_calls}
            if "weight" in turn:
                message["weight"] = weight_of(turn, where, faults)
            return message
        case _:
            return {"role": role, "content": text}


def _parse_result(
    text: str, speaker: str, where: str, unanswered: deque[str], faults: Faults
) -> JsonObject:
    message = {"role": "tool", "content": text}
    if unanswered:
        message["tool_call_id"] = unanswered.popleft()
    elif speaker == "observation":
        cure = "put a function_call before it, or write 'tool'"
        faults.add(f"{where}.from", f"is 'observation', and every call is answered; {cure}")
    return message
