"""Tools, calls of them and their answers, in OpenAI's form, the older one of functions included.

Calls may lack an id, as in TRL's form: answers without an id are then theirs, in order.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from core.datasets.faults import Faults, is_what, joined, nearest
from core.datasets.json_values import JsonObject, Row
from core.datasets.strict_json import BadJson, decode

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")
_ARGUMENTS_CURE = 'write one JSON object as a string, such as "{}"'


@dataclass
class Calls:
    """The tool calls that earlier messages have made."""

    ids: set[str] = field(default_factory=set)
    id_by_function: dict[str, str] = field(default_factory=dict)
    without_id: deque[str] = field(default_factory=deque)
    """The ids that we gave to calls without any, until each is answered."""

    def copy(self) -> "Calls":
        return Calls(set(self.ids), dict(self.id_by_function), deque(self.without_id))


def parse_tools(row: Row, faults: Faults, inside: str = "") -> tuple[JsonObject, ...]:
    """Return the tools of the object at path `inside`, those of the older `functions` included.

    Keys with null are left out at every depth: a table has every key in every struct, and the same
    tools have to come out of it.
    """
    tools = []
    for index, given in enumerate(_list(row, "tools", faults, inside)):
        where = joined(inside, f"tools[{index}]")
        if not isinstance(given, dict):
            faults.add(where, f"{is_what(given)}; write an object with type and function")
            continue
        tool = without_nulls(given)
        faults.unknown_keys(tool, ("type", "function"), where)
        _require_type_function(tool, where, faults)
        function = _parse_function(tool.get("function"), f"{where}.function", faults)
        tools.append({"type": "function", "function": function})
    for index, given in enumerate(_list(row, "functions", faults, inside)):
        where = joined(inside, f"functions[{index}]")
        function = _parse_function(without_nulls(given), where, faults)
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def without_nulls(value: object) -> Any:
    """Return the definition of a tool as it goes into prompts, in training and in serving."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return [without_nulls(child) for child in value] if isinstance(value, list) else value


def parse_tool_calls(
    message: JsonObject, where: str, calls: Calls, faults: Faults
) -> list[JsonObject]:
    """Return the calls of an assistant message, with parsed arguments, and remember their ids."""
    parsed = [
        _parse_tool_call(call, f"{where}.tool_calls[{index}]", calls, faults)
        for index, call in enumerate(_list(message, "tool_calls", faults, where))
    ]
    if message.get("function_call"):
        parsed.append(_parse_function_call(message["function_call"], where, calls, faults))
    return parsed


def answered_call(message: JsonObject, where: str, calls: Calls, faults: Faults) -> str:
    """Return the id of the earlier call that a message of role tool or function answers."""
    if message["role"] == "tool":
        if not message.get("tool_call_id") and calls.without_id:
            return calls.without_id.popleft()
        id_ = faults.text(message, "tool_call_id", where)
        if id_ and id_ not in calls.ids:
            cure = nearest(id_, calls.ids) or "use the id of an assistant message's tool call"
            faults.add(
                f"{where}.tool_call_id", f"{is_what(id_)}, which no earlier tool call has; {cure}"
            )
        return id_
    name = faults.text(message, "name", where)
    if name and name not in calls.id_by_function:
        cure = "use the name of an assistant message's function_call"
        faults.add(f"{where}.name", f"{is_what(name)}, which no earlier function_call has; {cure}")
    return calls.id_by_function.get(name, "")


def _parse_tool_call(call: object, where: str, calls: Calls, faults: Faults) -> JsonObject:
    if not isinstance(call, dict):
        faults.add(where, f"{is_what(call)}; write an object with id, type and function")
        return {}
    faults.unknown_keys(call, ("id", "type", "function", "index"), where)  # chunks have an index
    _require_type_function(call, where, faults)
    function = _parse_called_function(call.get("function"), f"{where}.function", faults)
    if call.get("id") in (None, ""):
        parsed = _with_new_id(function, calls)
        calls.without_id.append(parsed["id"])
        return parsed
    id_ = faults.text(call, "id", where)
    calls.ids.add(id_)
    return {"id": id_, "type": "function", "function": function}


def _parse_function_call(call: object, where: str, calls: Calls, faults: Faults) -> JsonObject:
    function = _parse_called_function(call, f"{where}.function_call", faults)
    parsed = _with_new_id(function, calls)
    calls.id_by_function[function["name"]] = parsed["id"]
    return parsed


def parse_written_calls(
    written: object, where: str, calls: Calls, faults: Faults
) -> list[JsonObject]:
    """Return the calls at path `where`: an object or a list of them, or either as a string of JSON.

    Each has `name` and `arguments`, an object or one written as a string.
    """
    try:
        written = decode(written) if isinstance(written, str) else written
    except BadJson as error:
        faults.add(where, f"is not JSON: {error}")
        return []
    parsed = []
    for call in written if isinstance(written, list) else [written]:
        parsed.append(_with_new_id(_parse_called_function(call, where, faults), calls))
    if not parsed:
        faults.add(where, "is an empty list; write an object with name and arguments")
    return parsed


def _with_new_id(function: JsonObject, calls: Calls) -> JsonObject:
    # Nine letters and digits: Mistral's template refuses ids of any other form.
    number = len(calls.ids)
    while (id_ := f"call{number:05d}") in calls.ids:
        number += 1
    calls.ids.add(id_)
    return {"id": id_, "type": "function", "function": function}


def _parse_called_function(function: object, where: str, faults: Faults) -> JsonObject:
    if not isinstance(function, dict):
        faults.add(where, f"{is_what(function)}; write an object with name and arguments")
        return {"name": "", "arguments": {}}
    faults.unknown_keys(function, ("name", "arguments"), where)
    name = _function_name(function, where, faults)
    return {"name": name, "arguments": _arguments(function.get("arguments"), where, faults)}


def _arguments(written: object, where: str, faults: Faults) -> JsonObject:
    """Return what a call was given: an object, or one as text, where "" is a call without any."""
    path = f"{where}.arguments"
    if isinstance(written, dict):
        return written
    if not isinstance(written, str):
        faults.add(path, f"{is_what(written)}; {_ARGUMENTS_CURE}")
        return {}
    if not written.strip():
        return {}
    try:
        arguments = decode(written)
    except BadJson as error:
        faults.add(path, f"is not JSON: {error}")
        return {}
    if not isinstance(arguments, dict):
        faults.add(path, f"holds JSON that {is_what(arguments)}; {_ARGUMENTS_CURE}")
        return {}
    return arguments


def _parse_function(function: object, where: str, faults: Faults) -> JsonObject:
    """Return the keys of a function that go into prompts."""
    if not isinstance(function, dict):
        faults.add(where, f"{is_what(function)}; write an object with name and parameters")
        return {}
    faults.unknown_keys(function, _FUNCTION_KEYS, where)
    _function_name(function, where, faults)
    if not isinstance(function.get("description", ""), str):
        faults.add(f"{where}.description", f"{is_what(function['description'])}; write a string")
    if not isinstance(function.get("parameters", {}), dict):
        cure = "write a JSON schema object"
        faults.add(f"{where}.parameters", f"{is_what(function['parameters'])}; {cure}")
    if not isinstance(function.get("strict", False), bool):
        faults.add(f"{where}.strict", f"{is_what(function['strict'])}; use true or false")
    return {key: value for key, value in function.items() if key in _FUNCTION_KEYS}


def _function_name(function: JsonObject, where: str, faults: Faults) -> str:
    name = faults.text(function, "name", where)
    if name and not _FUNCTION_NAME.fullmatch(name):
        cure = "use 1 to 64 letters, digits, '_', '-' and '.'"
        faults.add(f"{where}.name", f"{is_what(name)}; {cure}")
    return name


def _require_type_function(value: JsonObject, where: str, faults: Faults) -> None:
    if value.get("type") != "function":
        faults.add(f"{where}.type", f"{is_what(value.get('type'))}; use 'function'")


def _list(row: Row, key: str, faults: Faults, where: str = "") -> list[object]:
    value = row.get(key)
    if value is None or isinstance(value, list):
        return value or []
    faults.add(joined(where, key), f"{is_what(value)}; write a list")
    return []
