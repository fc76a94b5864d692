"""Converts OpenAI's chat format for fine-tuning into the input of a Hugging Face chat template.

This module handles every difference between the two:

- `content` becomes one string: text parts are joined, and it is "" beside tool calls. Templates
  test or concatenate it; few accept parts.
- `developer` becomes `system`: templates written before that role ignore it without an error.
- `function.arguments` becomes an object instead of a JSON string, because templates write it with
  `tojson`, which would quote a string a second time.
- The older `functions`, `function_call` and role `function` become tools and tool calls.
- `refusal` becomes the answer's text when the message has no content.
- Reasoning before an answer becomes `reasoning_content` (`reasoning.py`).
- `parallel_tool_calls` is validated and dropped: it is a request setting, not text.

A null means the same as a missing key, because table exports write nulls. Keys without text, such
as `annotations` in server responses, are ignored (`misspelled.py` has the exact rule).
"""

from core.datasets.json_values import JsonObject, Row
from core.datasets.reasoning import REASONING_KEYS, assistant_message, given_reasoning
from core.datasets.row_errors import RowErrors, describe, joined
from core.datasets.tools import Calls, answered_call, parse_tool_calls

_KEYS_BY_ROLE = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": (
        *("role", "content", "name", "tool_calls", "function_call", "refusal", "weight"),
        *REASONING_KEYS,
    ),
    "tool": ("role", "content", "name", "tool_call_id"),
    "function": ("role", "content", "name"),
}
KEYS_INSIDE = frozenset(
    (
        *(key for keys in _KEYS_BY_ROLE.values() for key in keys),
        *("from", "value", "type", "text", "messages", "function", "arguments", "parameters"),
        *("description", "strict"),
    )
)
"""The keys that are read inside messages, turns, calls and tools."""

_ROLE_SPECIFIC = ("tool_calls", "function_call", "tool_call_id", "weight")
"""Keys that imply a role; in a message of another role they are an error."""

_REASONING_PARTS = ("thinking", "reasoning")


def parse_messages(row: Row, errors: RowErrors) -> tuple[JsonObject, ...]:
    """Return `row["messages"]` ready for a template; add an error for what cannot be trained."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        errors.add("messages", f"{describe(messages)}; write a list of messages")
        return ()
    parsed = parse_conversation(messages, errors)
    require_answer(parsed, errors)
    return with_system(row, parsed, "messages", errors)


def parse_conversation(
    messages: list[object],
    errors: RowErrors,
    where: str = "messages",
    earlier_calls: Calls | None = None,
) -> tuple[JsonObject, ...]:
    """Return the messages at path `where` ready for a template.

    Each has `role` and `content`, and if given `name`, `reasoning_content`, `tool_calls`,
    `tool_call_id` and `weight`. An invalid message adds an error and is returned incomplete.
    Tool messages may answer `earlier_calls`; new calls are added to them.
    """
    calls = Calls() if earlier_calls is None else earlier_calls
    return tuple(
        _parse_message(message, f"{where}[{index}]", calls, errors)
        for index, message in enumerate(messages)
    )


def with_system(
    row: Row, messages: tuple[JsonObject, ...], where: str, errors: RowErrors
) -> tuple[JsonObject, ...]:
    """Return the messages, preceded by the text of the row's `system` key if present."""
    if not row.get("system"):
        return messages
    system = {"role": "system", "content": errors.text(row, "system")}
    if not messages or messages[0].get("role") != "system":
        return (system, *messages)
    if messages[0] != system:
        errors.add("system", f"differs from the system message in {where}; keep only one")
    return messages


def require_answer(
    messages: tuple[JsonObject, ...], errors: RowErrors, where: str = "messages", start: int = 0
) -> None:
    """Add an error if the parsed messages have no answer to train on.

    `messages` is the part from index `start` of the list at path `where`.
    """
    if not all(messages):
        return  # the invalid message may have been the answer
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        errors.add(where, "has no assistant message; add the answer to train on")
        return
    if answers[-1] != len(messages) - 1:
        last = f"{where}[{start + len(messages) - 1}]"
        errors.add(last, "is the last message but has another role; end with role 'assistant'")
    trained = [index for index in answers if messages[index].get("weight", 1) != 0]
    if not trained:
        errors.add(where, "trains nothing: every assistant message has weight 0; set one to 1")
    for index in trained:
        if messages[index]["content"] == "" and "tool_calls" not in messages[index]:
            hint = "write the answer or add tool_calls"
            errors.add(f"{where}[{start + index}].content", f"is empty; {hint}")


def untrained(messages: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    """Return parsed messages whose answers are not trained on."""
    return tuple(
        {**message, "weight": 0} if message.get("role") == "assistant" else message
        for message in messages
    )


def weight_of(message: JsonObject, where: str, errors: RowErrors) -> int:
    """Return the weight of an assistant message, 0 or 1; 1.0, as in tables, counts as 1."""
    weight = message["weight"]
    if isinstance(weight, bool) or weight not in (0, 1):
        hint = "use 1 to train on the message or 0 to exclude it from the loss"
        errors.add(f"{where}.weight", f"{describe(weight)}; {hint}")
        return 1
    return int(weight)


def _parse_message(message: object, where: str, calls: Calls, errors: RowErrors) -> JsonObject:
    if not isinstance(message, dict):
        errors.add(where, f"{describe(message)}; write an object with role and content")
        return {}
    message = {key: value for key, value in message.items() if value is not None}
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEYS_BY_ROLE:
        errors.add(f"{where}.role", f"{describe(role)}; use one of {', '.join(_KEYS_BY_ROLE)}")
        return {}
    _check_keys(message, role, where, errors)
    match role:
        case "assistant":
            parsed = _parse_assistant(message, where, calls, errors)
        case "tool" | "function":
            content = _content(message, where, errors)[0]
            parsed = {"role": "tool", "content": content}
            parsed["tool_call_id"] = answered_call(message, where, calls, errors)
        case _:
            parsed = {
                "role": "system" if role == "developer" else role,
                "content": _content(message, where, errors)[0],
            }
    if message.get("name", "") != "":
        parsed["name"] = errors.text(message, "name", where)
    return parsed


def _check_keys(message: JsonObject, role: str, where: str, errors: RowErrors) -> None:
    foreign = [key for key in _ROLE_SPECIFIC if key not in _KEYS_BY_ROLE[role] and key in message]
    for key in foreign:
        # Exports write [] or "" for a role without the key, and weight 0 has no effect here.
        if message[key]:
            owners = [name for name, keys in _KEYS_BY_ROLE.items() if key in keys]
            what = f"is allowed only in {' and '.join(owners)} messages, not in {role} messages"
            errors.add(joined(where, key), f"{what}; remove it")
    rest = {key: value for key, value in message.items() if key not in foreign}
    errors.unknown_keys(rest, _KEYS_BY_ROLE[role], where)


def _parse_assistant(
    message: JsonObject, where: str, calls: Calls, errors: RowErrors
) -> JsonObject:
    tool_calls = parse_tool_calls(message, where, calls, errors)
    reasoning = given_reasoning(message, where, errors)
    content: str | None = ""
    thoughts: str | None = None
    if "content" not in message and message.get("refusal"):
        content = errors.text(message, "refusal", where)
    elif "content" in message or not (tool_calls or reasoning):
        content, thoughts = _content(message, where, errors)
    parsed = assistant_message(content or "", thoughts if reasoning is None else reasoning)
    if content is None:
        parsed["content"] = None  # its error has been added already
    if tool_calls:
        parsed["tool_calls"] = tool_calls
    if "weight" in message:
        parsed["weight"] = weight_of(message, where, errors)
    return parsed


def _content(message: JsonObject, where: str, errors: RowErrors) -> tuple[str | None, str | None]:
    """Return the text and the reasoning of a message; the text is None if it is invalid."""
    content = message.get("content")
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        hint = "write a string or a list of text parts"
        errors.add(f"{where}.content", f"{describe(content)}; {hint}")
        return None, None
    texts: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(content):
        _parse_part(part, f"{where}.content[{index}]", texts, thoughts, errors)
    if message["role"] != "assistant" and thoughts:
        errors.ignore("content[].thinking", where)
    complete = len(texts) + len(thoughts) == len(content)
    return "".join(texts) if complete else None, "".join(thoughts) if thoughts else None


def _parse_part(
    part: object, where: str, texts: list[str], thoughts: list[str], errors: RowErrors
) -> None:
    """Append the text of a content part to `texts` or `thoughts`."""
    if not isinstance(part, dict):
        errors.add(where, f"{describe(part)}; write an object with type and text")
        return
    part = {key: value for key, value in part.items() if value is not None}
    kind = part.get("type")
    if kind == "text":
        errors.unknown_keys(part, ("type", "text"), where)
        texts.append(errors.text(part, "text", where, empty=True))
    elif kind in _REASONING_PARTS:
        key = kind if kind in part else "text"
        errors.unknown_keys(part, ("type", key), where)
        if isinstance(part.get(key), list):  # Mistral nests parts in a thought
            inner: list[str] = []
            for index, piece in enumerate(part[key]):
                _parse_part(piece, f"{where}.{key}[{index}]", inner, inner, errors)
            thoughts.append("".join(inner))
        else:
            thoughts.append(errors.text(part, key, where, empty=True))
    else:
        hint = "only parts of type 'text' can be trained on"
        errors.add(f"{where}.type", f"{describe(kind)}; {hint}")
