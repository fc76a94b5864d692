"""ShareGPT's conversations, read into the same messages as OpenAI's form.

`human`, `gpt` and `system` are user, assistant and system. `function_call` holds a call, or a
list of calls, as JSON; `observation` answers the calls before it in their order. `tool` is an
answer as well, and may stand alone: some data sets write their calls into the text.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from core.datasets.chat import require_answer
from core.datasets.faults import Faults, is_what
from core.datasets.tools import Calls, parse_tools, parse_written_calls

_SPEAKERS = ("human", "gpt", "system", "function_call", "observation", "tool")

Messages = tuple[dict[str, Any], ...]


def parse_conversations(row: Mapping[str, Any], faults: Faults) -> tuple[Messages, Messages]:
    """Return messages ready for a template, and tools; note what keeps them from training."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        faults.add("conversations", f"{is_what(turns)}; write a list of turns")
        return (), ()
    calls = Calls()
    unanswered: deque[str] = deque()
    parsed = tuple(
        _parse_turn(turn, f"conversations[{index}]", calls, unanswered, faults)
        for index, turn in enumerate(turns)
    )
    require_answer(parsed, faults, "conversations")
    if row.get("system"):
        parsed = ({"role": "system", "content": faults.text(row, "system")}, *parsed)
        if len(parsed) > 1 and parsed[1].get("role") == "system":
            faults.add("system", "stands beside a system turn in conversations; keep one of them")
    return parsed, parse_tools({"tools": _wrapped(row.get("tools"))}, faults)


def _parse_turn(
    turn: Any, where: str, calls: Calls, unanswered: deque[str], faults: Faults
) -> dict[str, Any]:
    if not isinstance(turn, dict):
        faults.add(where, f"{is_what(turn)}; write an object with from and value")
        return {}
    turn = {key: value for key, value in turn.items() if value is not None}
    faults.unknown_keys(turn, ("from", "value"), where)
    speaker = turn.get("from")
    if speaker not in _SPEAKERS:
        faults.add(f"{where}.from", f"{is_what(speaker)}; use one of {', '.join(_SPEAKERS)}")
        return {}
    text = faults.text(turn, "value", where, empty=speaker != "gpt")
    match speaker:
        case "human":
            return {"role": "user", "content": text}
        case "gpt":
            return {"role": "assistant", "content": text}
        case "system":
            return {"role": "system", "content": text}
        case "function_call":
            tool_calls = parse_written_calls(text, f"{where}.value", calls, faults)
            unanswered.extend(call["id"] for call in tool_calls)
            return {"role": "assistant", "content": "", "tool_calls": tool_calls}
        case _:
            return _parse_result(text, speaker, where, unanswered, faults)


def _parse_result(
    text: str, speaker: str, where: str, unanswered: deque[str], faults: Faults
) -> dict[str, Any]:
    message = {"role": "tool", "content": text}
    if unanswered:
        message["tool_call_id"] = unanswered.popleft()
    elif speaker == "observation":
        cure = "put a function_call before it, or write 'tool'"
        faults.add(f"{where}.from", f"is 'observation', and every call is answered; {cure}")
    return message


def _wrapped(tools: Any) -> Any:
    """Return functions that stand in the list without their wrapping as tools."""
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool and "function" not in tool
        else tool
        for tool in tools
    ]
