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

from collections.abc import Mapping
from typing import Any

from core.datasets.faults import Faults, is_what, joined
from core.datasets.tools import Calls, answered_call, parse_tool_calls

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


def parse_messages(row: Mapping[str, Any], faults: Faults) -> tuple[dict[str, Any], ...]:
    """Return `row["messages"]` ready for a template, and note what keeps it from being trained."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        faults.add("messages", f"{is_what(messages)}; write a list of messages")
        return ()
    parsed = parse_conversation(messages, faults)
    require_answer(parsed, faults)
    return parsed


def parse_conversation(
    messages: list[Any],
    faults: Faults,
    where: str = "messages",
    earlier_calls: Calls | None = None,
) -> tuple[dict[str, Any], ...]:
    """Return the messages ready for a template; a faulty one is noted and comes out incomplete.

    `role`, `content`, and where given `name`, `tool_calls`, `tool_call_id` and `weight`. The
    messages stand at path `where`; they may answer `earlier_calls`, and their own are added.
    """
    calls = Calls() if earlier_calls is None else earlier_calls
    return tuple(
        _parse_message(message, f"{where}[{index}]", calls, faults)
        for index, message in enumerate(messages)
    )


def require_answer(
    messages: tuple[dict[str, Any], ...], faults: Faults, where: str = "messages", start: int = 0
) -> None:
    """Note what keeps parsed messages from training anything.

    `messages` are those from number `start` on of the list at path `where`.
    """
    if not all(messages):
        return  # the faulty one may have been the answer
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        faults.add(where, "holds no assistant message; add the answer to be learnt")
        return
    if answers[-1] != len(messages) - 1:
        last = f"{where}[{start + len(messages) - 1}]"
        faults.add(last, "is the last message and not the assistant's; end with role 'assistant'")
    trained = [index for index in answers if messages[index].get("weight", 1) != 0]
    if not trained:
        faults.add(where, "trains nothing: every assistant message has weight 0; give one 1")
    for index in trained:
        if messages[index]["content"] == "" and "tool_calls" not in messages[index]:
            cure = "write the answer, or give tool_calls"
            faults.add(f"{where}[{start + index}].content", f"is empty; {cure}")


def _parse_message(message: Any, where: str, calls: Calls, faults: Faults) -> dict[str, Any]:
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
        case "tool" | "function":
            content = _content(message, where, faults)
            id_ = answered_call(message, where, calls, faults)
            parsed = {"role": "tool", "content": content, "tool_call_id": id_}
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
    message: dict[str, Any], where: str, calls: Calls, faults: Faults
) -> dict[str, Any]:
    tool_calls = parse_tool_calls(message, where, calls, faults)
    content: str | None = ""
    if "content" not in message and "refusal" in message:
        content = faults.text(message, "refusal", where)
    elif "content" in message or not tool_calls:
        content = _content(message, where, faults)
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


def _content(message: dict[str, Any], where: str, faults: Faults) -> str | None:
    """Return the text of a message, or None when it is faulty, which has then been noted."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        cure = "write a string or a list of text parts"
        faults.add(f"{where}.content", f"{is_what(content)}; {cure}")
        return None
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
    return "".join(texts) if len(texts) == len(content) else None
