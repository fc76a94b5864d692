"""OpenAI's fine-tuning chat form, read into what a Hugging Face chat template expects.

The two differ, and every difference is settled here, once:

- `content` is one string: text parts are joined, and it is "" beside tool calls. Templates
  test it or concatenate it, and few know parts.
- `developer` becomes `system`: templates written before that role skip it in silence.
- `function.arguments` is an object instead of a JSON string, because templates write it with
  `tojson`, which would quote a string a second time.
- The older `functions`, `function_call` and role `function` become tools and tool calls.
- `refusal` is the answer's text when there is no content.
- `parallel_tool_calls` is checked and dropped: it steers a request and is not part of the text.

A null is the same as leaving the key out, as exports of tables write it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.datasets.faults import Faults, is_what, joined, nearest
from core.datasets.strict_json import BadJson, decode

_KEYS_BY_ROLE = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": (
        "role",
        "content",
        "name",
        "tool_calls",
        "function_call",
        "refusal",
        "weight",
    ),
    "tool": ("role", "content", "name", "tool_call_id"),
    "function": ("role", "content", "name"),
}
_ALL_KEYS = sorted({key for keys in _KEYS_BY_ROLE.values() for key in keys})
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass
class _Calls:
    """The tool calls that an earlier message has made."""

    ids: set[str] = field(default_factory=set)
    id_by_function: dict[str, str] = field(default_factory=dict)


def parse_messages(row: Mapping[str, Any], faults: Faults) -> tuple[dict[str, Any], ...]:
    """Return `row["messages"]` ready for a template, and note what keeps it from being trained."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        faults.add("messages", f"{is_what(messages)}; write a list of messages")
        return ()
    parsed = parse_conversation(messages, faults)
    _require_something_to_train(parsed, faults)
    return parsed


def parse_conversation(messages: list[Any], faults: Faults) -> tuple[dict[str, Any], ...]:
    """Return the messages ready for a template; a faulty one is noted and comes out incomplete.

    `role`, `content`, and where given `name`, `tool_calls`, `tool_call_id` and `weight`.
    """
    calls = _Calls()
    return tuple(
        _parse_message(message, f"messages[{index}]", calls, faults)
        for index, message in enumerate(messages)
    )


def parse_tools(row: Mapping[str, Any], faults: Faults) -> tuple[dict[str, Any], ...]:
    """Return the tools of a row, those of the older `functions` included."""
    tools = []
    for index, tool in enumerate(_list(row, "tools", faults)):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            faults.add(where, f"{is_what(tool)}; write an object with type and function")
            continue
        faults.unknown_keys(tool, ("type", "function"), where)
        _require_type_function(tool, where, faults)
        _check_function(tool.get("function"), f"{where}.function", faults)
        tools.append(tool)
    for index, function in enumerate(_list(row, "functions", faults)):
        _check_function(function, f"functions[{index}]", faults)
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def _parse_message(message: Any, where: str, calls: _Calls, faults: Faults) -> dict[str, Any]:
    if not isinstance(message, dict):
        faults.add(where, f"{is_what(message)}; write an object with role and content")
        return {}
    message = {key: value for key, value in message.items() if value is not None}
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEYS_BY_ROLE:
        faults.add(f"{where}.role", f"{is_what(role)}; use one of {', '.join(_KEYS_BY_ROLE)}")
        return {}
    _check_keys(message, role, where, faults)
    match role:
        case "assistant":
            parsed = _parse_assistant(message, where, calls, faults)
        case "tool":
            parsed = _parse_tool_answer(message, where, calls, faults)
        case "function":
            parsed = _parse_function_answer(message, where, calls, faults)
        case _:
            parsed = {
                "role": "system" if role == "developer" else role,
                "content": _content(message, where, faults),
            }
    if "name" in message:
        parsed["name"] = faults.text(message, "name", where)
    return parsed


def _check_keys(message: dict[str, Any], role: str, where: str, faults: Faults) -> None:
    for key in message:
        if key in _KEYS_BY_ROLE[role]:
            continue
        if key in _ALL_KEYS:
            owners = [name for name, keys in _KEYS_BY_ROLE.items() if key in keys]
            cure = f"belongs to {' and '.join(owners)} messages, not to {role} ones; remove it"
            faults.add(joined(where, key), cure)
        else:
            faults.unknown_keys({key: None}, _KEYS_BY_ROLE[role], where)


def _parse_assistant(
    message: dict[str, Any], where: str, calls: _Calls, faults: Faults
) -> dict[str, Any]:
    tool_calls = [
        _parse_tool_call(call, f"{where}.tool_calls[{index}]", calls, faults)
        for index, call in enumerate(_list(message, "tool_calls", faults, where))
    ]
    if "function_call" in message:
        tool_calls.append(_parse_function_call(message["function_call"], where, calls, faults))

    content = ""
    if "content" in message:
        content = _content(message, where, faults)
    elif "refusal" in message:
        content = faults.text(message, "refusal", where)
    if not content and not tool_calls:
        faults.add(f"{where}.content", "is empty; write the answer, or give tool_calls")

    parsed: dict[str, Any] = {"role": "assistant", "content": content}
    if tool_calls:
        parsed["tool_calls"] = tool_calls
    if "weight" in message:
        weight = message["weight"]
        if type(weight) is not int or weight not in (0, 1):
            cure = "use 1 to train on the message or 0 to leave it out of the loss"
            faults.add(f"{where}.weight", f"{is_what(weight)}; {cure}")
        parsed["weight"] = weight
    return parsed


def _parse_tool_call(call: Any, where: str, calls: _Calls, faults: Faults) -> dict[str, Any]:
    if not isinstance(call, dict):
        faults.add(where, f"{is_what(call)}; write an object with id, type and function")
        return {}
    faults.unknown_keys(call, ("id", "type", "function"), where)
    _require_type_function(call, where, faults)
    id_ = faults.text(call, "id", where)
    calls.ids.add(id_)
    function = _parse_called_function(call.get("function"), f"{where}.function", faults)
    return {"id": id_, "type": "function", "function": function}


def _parse_function_call(call: Any, where: str, calls: _Calls, faults: Faults) -> dict[str, Any]:
    function = _parse_called_function(call, f"{where}.function_call", faults)
    # Nine letters and digits: Mistral's template refuses ids of any other form.
    id_ = f"call{len(calls.ids):05d}"
    calls.ids.add(id_)
    calls.id_by_function[function["name"]] = id_
    return {"id": id_, "type": "function", "function": function}


def _parse_called_function(function: Any, where: str, faults: Faults) -> dict[str, Any]:
    if not isinstance(function, dict):
        faults.add(where, f"{is_what(function)}; write an object with name and arguments")
        return {"name": "", "arguments": {}}
    faults.unknown_keys(function, ("name", "arguments"), where)
    name = _function_name(function, where, faults)
    written = faults.text(function, "arguments", where)
    arguments: Any = {}
    if written:
        try:
            arguments = decode(written)
        except BadJson as error:
            faults.add(f"{where}.arguments", f"is not JSON: {error}")
        if not isinstance(arguments, dict):
            cure = "write one JSON object as a string"
            faults.add(f"{where}.arguments", f"holds no object, it {is_what(arguments)}; {cure}")
    return {"name": name, "arguments": arguments}


def _parse_tool_answer(
    message: dict[str, Any], where: str, calls: _Calls, faults: Faults
) -> dict[str, Any]:
    id_ = faults.text(message, "tool_call_id", where)
    if id_ and id_ not in calls.ids:
        cure = nearest(id_, calls.ids) or "use the id of an assistant message's tool call"
        faults.add(
            f"{where}.tool_call_id", f"{is_what(id_)}, which no earlier tool call has; {cure}"
        )
    return {"role": "tool", "content": _content(message, where, faults), "tool_call_id": id_}


def _parse_function_answer(
    message: dict[str, Any], where: str, calls: _Calls, faults: Faults
) -> dict[str, Any]:
    name = message.get("name")
    id_ = calls.id_by_function.get(name, "") if isinstance(name, str) else ""
    if not id_:
        cure = "use the name of an assistant message's function_call"
        faults.add(f"{where}.name", f"{is_what(name)}, which no earlier function_call has; {cure}")
    return {"role": "tool", "content": _content(message, where, faults), "tool_call_id": id_}


def _content(message: dict[str, Any], where: str, faults: Faults) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        cure = "write a string or a list of text parts"
        faults.add(f"{where}.content", f"{is_what(content)}; {cure}")
        return ""
    texts = []
    for index, part in enumerate(content):
        part_path = f"{where}.content[{index}]"
        if not isinstance(part, dict):
            faults.add(part_path, f"{is_what(part)}; write an object with type and text")
        elif part.get("type") != "text":
            cure = "only parts of type 'text' can be trained on"
            faults.add(f"{part_path}.type", f"{is_what(part.get('type'))}; {cure}")
        else:
            faults.unknown_keys(part, ("type", "text"), part_path)
            texts.append(faults.text(part, "text", part_path, empty=True))
    return "".join(texts)


def _check_function(function: Any, where: str, faults: Faults) -> None:
    if not isinstance(function, dict):
        faults.add(where, f"{is_what(function)}; write an object with name and parameters")
        return
    faults.unknown_keys(function, ("name", "description", "parameters", "strict"), where)
    _function_name(function, where, faults)
    if not isinstance(function.get("description") or "", str):
        faults.add(f"{where}.description", f"{is_what(function['description'])}; write a string")
    if not isinstance(function.get("parameters") or {}, dict):
        cure = "write a JSON schema object"
        faults.add(f"{where}.parameters", f"{is_what(function['parameters'])}; {cure}")
    if not isinstance(function.get("strict") or False, bool):
        faults.add(f"{where}.strict", f"{is_what(function['strict'])}; use true or false")


def _function_name(function: dict[str, Any], where: str, faults: Faults) -> str:
    name = faults.text(function, "name", where)
    if name and not _FUNCTION_NAME.fullmatch(name):
        cure = "use 1 to 64 letters, digits, '_' and '-'"
        faults.add(f"{where}.name", f"{is_what(name)}; {cure}")
    return name


def _require_type_function(value: dict[str, Any], where: str, faults: Faults) -> None:
    if value.get("type") != "function":
        faults.add(f"{where}.type", f"{is_what(value.get('type'))}; use 'function'")


def _list(row: Mapping[str, Any], key: str, faults: Faults, where: str = "") -> list[Any]:
    value = row.get(key)
    if value is None or isinstance(value, list):
        return value or []
    faults.add(joined(where, key), f"{is_what(value)}; write a list")
    return []


def _require_something_to_train(messages: tuple[dict[str, Any], ...], faults: Faults) -> None:
    answers = [message for message in messages if message.get("role") == "assistant"]
    if not answers:
        faults.add("messages", "holds no assistant message; add the answer to be learnt")
        return
    if all(message.get("weight", 1) == 0 for message in answers):
        faults.add("messages", "trains nothing: every assistant message has weight 0; use 1 once")
    last = messages[-1].get("role")
    if last is not None and last != "assistant":
        where = f"messages[{len(messages) - 1}]"
        faults.add(where, f"is the last message and not the assistant's; end with role 'assistant'")
