"""Parses tools, tool calls and tool messages in OpenAI's format, with the older functions.

Calls may lack an id, as in TRL's format; tool messages without an id then answer them in order.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from core.datasets.json_values import JsonObject, Row
from core.datasets.row_errors import RowErrors, describe, joined, nearest
from core.datasets.strict_json import BadJson, decode

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")
_ARGUMENTS_HINT = 'write one JSON object as a string, such as "{}"'


@dataclass
class Calls:
    """The tool calls of earlier messages."""

    ids: set[str] = field(default_factory=set)
    id_by_function: dict[str, str] = field(default_factory=dict)
    without_id: deque[str] = field(default_factory=deque)
    """The generated ids of unanswered calls that had no id."""

    def copy(self) -> "Calls":
        return Calls(set(self.ids), dict(self.id_by_function), deque(self.without_id))


def parse_tools(row: Row, errors: RowErrors, inside: str = "") -> tuple[JsonObject, ...]:
    """Return the tools of the object at path `inside`, including its older `functions`.

    Nulls are dropped at every depth, so that a table, which has every key in every struct, gives
    the same tools as JSON.
    """
    tools = []
    for index, given in enumerate(_list(row, "tools", errors, inside)):
        where = joined(inside, f"tools[{index}]")
        if not isinstance(given, dict):
            errors.add(where, f"{describe(given)}; write an object with type and function")
            continue
        tool = without_nulls(given)
        errors.unknown_keys(tool, ("type", "function"), where)
        _require_type_function(tool, where, errors)
        function = _parse_function(tool.get("function"), f"{where}.function", errors)
        tools.append({"type": "function", "function": function})
    for index, given in enumerate(_list(row, "functions", errors, inside)):
        where = joined(inside, f"functions[{index}]")
        function = _parse_function(without_nulls(given), where, errors)
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def without_nulls(value: object) -> Any:
    """Return a tool definition as rendered in prompts, in training and in serving."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return [without_nulls(child) for child in value] if isinstance(value, list) else value


def parse_tool_calls(
    message: JsonObject, where: str, calls: Calls, errors: RowErrors
) -> list[JsonObject]:
    """Return the calls of an assistant message with parsed arguments; add their ids to `calls`."""
    parsed = [
        _parse_tool_call(call, f"{where}.tool_calls[{index}]", calls, errors)
        for index, call in enumerate(_list(message, "tool_calls", errors, where))
    ]
    if message.get("function_call"):
        parsed.append(_parse_function_call(message["function_call"], where, calls, errors))
    return parsed


def answered_call(message: JsonObject, where: str, calls: Calls, errors: RowErrors) -> str:
    """Return the id of the earlier call that a message of role tool or function answers."""
    if message["role"] == "tool":
        if not message.get("tool_call_id") and calls.without_id:
            return calls.without_id.popleft()
        id_ = errors.text(message, "tool_call_id", where)
        if id_ and id_ not in calls.ids:
            hint = nearest(id_, calls.ids) or "use the id of an assistant message's tool call"
            errors.add(
                f"{where}.tool_call_id", f"{describe(id_)}, but no earlier tool call has it; {hint}"
            )
        return id_
    name = errors.text(message, "name", where)
    if name and name not in calls.id_by_function:
        hint = "use the name of an assistant message's function_call"
        errors.add(
            f"{where}.name", f"{describe(name)}, but no earlier function_call has it; {hint}"
        )
    return calls.id_by_function.get(name, "")


def _parse_tool_call(call: object, where: str, calls: Calls, errors: RowErrors) -> JsonObject:
    if not isinstance(call, dict):
        errors.add(where, f"{describe(call)}; write an object with id, type and function")
        return {}
    errors.unknown_keys(
        call, ("id", "type", "function", "index"), where
    )  # stream chunks have an index
    _require_type_function(call, where, errors)
    function = _parse_called_function(call.get("function"), f"{where}.function", errors)
    if call.get("id") in (None, ""):
        parsed = _with_new_id(function, calls)
        calls.without_id.append(parsed["id"])
        return parsed
    id_ = errors.text(call, "id", where)
    calls.ids.add(id_)
    return {"id": id_, "type": "function", "function": function}


def _parse_function_call(call: object, where: str, calls: Calls, errors: RowErrors) -> JsonObject:
    function = _parse_called_function(call, f"{where}.function_call", errors)
    parsed = _with_new_id(function, calls)
    calls.id_by_function[function["name"]] = parsed["id"]
    return parsed


def parse_written_calls(
    written: object, where: str, calls: Calls, errors: RowErrors
) -> list[JsonObject]:
    """Return the calls at path `where`: one object or a list, as JSON values or a JSON string.

    Each call has `name` and `arguments`, an object or a JSON string.
    """
    try:
        written = decode(written) if isinstance(written, str) else written
    except BadJson as error:
        errors.add(where, f"is not JSON: {error}")
        return []
    parsed = []
    for call in written if isinstance(written, list) else [written]:
        parsed.append(_with_new_id(_parse_called_function(call, where, errors), calls))
    if not parsed:
        errors.add(where, "is an empty list; write an object with name and arguments")
    return parsed


def _with_new_id(function: JsonObject, calls: Calls) -> JsonObject:
    # Mistral's template requires ids of nine letters and digits.
    number = len(calls.ids)
    while (id_ := f"call{number:05d}") in calls.ids:
        number += 1
    calls.ids.add(id_)
    return {"id": id_, "type": "function", "function": function}


def _parse_called_function(function: object, where: str, errors: RowErrors) -> JsonObject:
    if not isinstance(function, dict):
        errors.add(where, f"{describe(function)}; write an object with name and arguments")
        return {"name": "", "arguments": {}}
    errors.unknown_keys(function, ("name", "arguments"), where)
    name = _function_name(function, where, errors)
    return {"name": name, "arguments": _arguments(function.get("arguments"), where, errors)}


def _arguments(written: object, where: str, errors: RowErrors) -> JsonObject:
    """Return the arguments of a call: an object, or a JSON string, where "" means no arguments."""
    path = f"{where}.arguments"
    if isinstance(written, dict):
        return written
    if not isinstance(written, str):
        errors.add(path, f"{describe(written)}; {_ARGUMENTS_HINT}")
        return {}
    if not written.strip():
        return {}
    try:
        arguments = decode(written)
    except BadJson as error:
        errors.add(path, f"is not JSON: {error}")
        return {}
    if not isinstance(arguments, dict):
        errors.add(path, f"contains JSON that {describe(arguments)}; {_ARGUMENTS_HINT}")
        return {}
    return arguments


def _parse_function(function: object, where: str, errors: RowErrors) -> JsonObject:
    """Return the keys of a function that are rendered in prompts."""
    if not isinstance(function, dict):
        errors.add(where, f"{describe(function)}; write an object with name and parameters")
        return {}
    errors.unknown_keys(function, _FUNCTION_KEYS, where)
    _function_name(function, where, errors)
    if not isinstance(function.get("description", ""), str):
        errors.add(f"{where}.description", f"{describe(function['description'])}; write a string")
    if not isinstance(function.get("parameters", {}), dict):
        hint = "write a JSON schema object"
        errors.add(f"{where}.parameters", f"{describe(function['parameters'])}; {hint}")
    if not isinstance(function.get("strict", False), bool):
        errors.add(f"{where}.strict", f"{describe(function['strict'])}; use true or false")
    return {key: value for key, value in function.items() if key in _FUNCTION_KEYS}


def _function_name(function: JsonObject, where: str, errors: RowErrors) -> str:
    name = errors.text(function, "name", where)
    if name and not _FUNCTION_NAME.fullmatch(name):
        hint = "use 1 to 64 letters, digits, '_', '-' or '.'"
        errors.add(f"{where}.name", f"{describe(name)}; {hint}")
    return name


def _require_type_function(value: JsonObject, where: str, errors: RowErrors) -> None:
    if value.get("type") != "function":
        errors.add(f"{where}.type", f"{describe(value.get('type'))}; use 'function'")


def _list(row: Row, key: str, errors: RowErrors, where: str = "") -> list[object]:
    value = row.get(key)
    if value is None or isinstance(value, list):
        return value or []
    errors.add(joined(where, key), f"{describe(value)}; write a list")
    return []
