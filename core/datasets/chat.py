"""OpenAI's fine-tuning chat form, read into what a Hugging Face chat template expects.

The two differ, and every difference is settled here, once:

- `content` is one string: text parts are joined, and it is "" beside tool calls. Templates
  test it or concatenate it, and few know parts.
- `developer` becomes `system`: templates written before that role skip it in silence.
- `function.arguments` is an object instead of a JSON string, because templates write it with
  `tojson`, which would quote a string a second time.
- The older `functions`, `function_call` and role `function` become tools and tool calls.
- `refusal` is the answer's text when there is no content.
- What an assistant thought before its answer becomes `reasoning_content` (`reasoning.py`).
- `parallel_tool_calls` is checked and dropped: it steers a request and is not part of the text.

A null is the same as leaving the key out, as exports of tables write it. Keys that carry no text,
such as `annotations` in what a server has answered, are passed over (`misspelt.py` says which).
"""

from core.datasets.faults import Faults, is_what, joined
from core.datasets.json_values import JsonObject, Row
from core.datasets.reasoning import REASONING_KEYS, assistant_message, given_reasoning
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
"""What is read inside of messages, turns, calls and tools."""

_READ_ELSEWHERE = ("tool_calls", "function_call", "tool_call_id", "weight")
"""Keys that say something about the role as well; at another one they are a mistake."""

_REASONING_PARTS = ("thinking", "reasoning")


def parse_messages(row: Row, faults: Faults) -> tuple[JsonObject, ...]:
    """Return `row["messages"]` ready for a template, and note what keeps it from being trained."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        faults.add("messages", f"{is_what(messages)}; write a list of messages")
        return ()
    parsed = parse_conversation(messages, faults)
    require_answer(parsed, faults)
    return with_system(row, parsed, "messages", faults)


def parse_conversation(
    messages: list[object],
    faults: Faults,
    where: str = "messages",
    earlier_calls: Calls | None = None,
) -> tuple[JsonObject, ...]:
    """Return the messages ready for a template; a faulty one is noted and comes out incomplete.

    `role`, `content`, and where given `name`, `reasoning_content`, `tool_calls`, `tool_call_id`
    and `weight`. The messages stand at path `where`; they may answer `earlier_calls`, and their
    own are added.
    """
    calls = Calls() if earlier_calls is None else earlier_calls
    return tuple(
        _parse_message(message, f"{where}[{index}]", calls, faults)
        for index, message in enumerate(messages)
    )


def with_system(
    row: Row, messages: tuple[JsonObject, ...], where: str, faults: Faults
) -> tuple[JsonObject, ...]:
    """Return the messages after the text under the row's `system`, if it has one."""
    if not row.get("system"):
        return messages
    system = {"role": "system", "content": faults.text(row, "system")}
    if not messages or messages[0].get("role") != "system":
        return (system, *messages)
    if messages[0] != system:
        faults.add("system", f"differs from the system message in {where}; keep one of them")
    return messages


def require_answer(
    messages: tuple[JsonObject, ...], faults: Faults, where: str = "messages", start: int = 0
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


def weight_of(message: JsonObject, where: str, faults: Faults) -> int:
    """Return the weight of an assistant's message; 1.0, as tables write it, is 1."""
    weight = message["weight"]
    if isinstance(weight, bool) or weight not in (0, 1):
        cure = "use 1 to train on the message or 0 to leave it out of the loss"
        faults.add(f"{where}.weight", f"{is_what(weight)}; {cure}")
        return 1
    return int(weight)


def _parse_message(message: object, where: str, calls: Calls, faults: Faults) -> JsonObject:
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
            content = _content(message, where, faults)[0]
            parsed = {"role": "tool", "content": content}
            parsed["tool_call_id"] = answered_call(message, where, calls, faults)
        case _:
            parsed = {
                "role": "system" if role == "developer" else role,
                "content": _content(message, where, faults)[0],
            }
    if message.get("name", "") != "":
        parsed["name"] = faults.text(message, "name", where)
    return parsed


def _check_keys(message: JsonObject, role: str, where: str, faults: Faults) -> None:
    foreign = [key for key in _READ_ELSEWHERE if key not in _KEYS_BY_ROLE[role] and key in message]
    for key in foreign:
        # Exports write [] or "" where a role has no such key, and weight 0 is what others have.
        if message[key]:
            owners = [name for name, keys in _KEYS_BY_ROLE.items() if key in keys]
            cure = f"belongs to {' and '.join(owners)} messages, not to {role} ones; remove it"
            faults.add(joined(where, key), cure)
    rest = {key: value for key, value in message.items() if key not in foreign}
    faults.unknown_keys(rest, _KEYS_BY_ROLE[role], where)


def _parse_assistant(message: JsonObject, where: str, calls: Calls, faults: Faults) -> JsonObject:
    tool_calls = parse_tool_calls(message, where, calls, faults)
    reasoning = given_reasoning(message, where, faults)
    content: str | None = ""
    thoughts: str | None = None
    if "content" not in message and message.get("refusal"):
        content = faults.text(message, "refusal", where)
    elif "content" in message or not (tool_calls or reasoning):
        content, thoughts = _content(message, where, faults)
    parsed = assistant_message(content or "", thoughts if reasoning is None else reasoning)
    if content is None:
        parsed["content"] = None  # the fault has been noted; nothing more is said of it
    if tool_calls:
        parsed["tool_calls"] = tool_calls
    if "weight" in message:
        parsed["weight"] = weight_of(message, where, faults)
    return parsed


def _content(message: JsonObject, where: str, faults: Faults) -> tuple[str | None, str | None]:
    """Return the text and the reasoning of a message; no text when it is faulty and noted."""
    content = message.get("content")
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        cure = "write a string or a list of text parts"
        faults.add(f"{where}.content", f"{is_what(content)}; {cure}")
        return None, None
    texts: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(content):
        _parse_part(part, f"{where}.content[{index}]", texts, thoughts, faults)
    if message["role"] != "assistant" and thoughts:
        faults.pass_over("content[].thinking", where)
    complete = len(texts) + len(thoughts) == len(content)
    return "".join(texts) if complete else None, "".join(thoughts) if thoughts else None


def _parse_part(
    part: object, where: str, texts: list[str], thoughts: list[str], faults: Faults
) -> None:
    """Add the text of a part of the content where it belongs."""
    if not isinstance(part, dict):
        faults.add(where, f"{is_what(part)}; write an object with type and text")
        return
    part = {key: value for key, value in part.items() if value is not None}
    kind = part.get("type")
    if kind == "text":
        faults.unknown_keys(part, ("type", "text"), where)
        texts.append(faults.text(part, "text", where, empty=True))
    elif kind in _REASONING_PARTS:
        key = kind if kind in part else "text"
        faults.unknown_keys(part, ("type", key), where)
        if isinstance(part.get(key), list):  # Mistral writes thoughts as parts of their own
            inner: list[str] = []
            for index, piece in enumerate(part[key]):
                _parse_part(piece, f"{where}.{key}[{index}]", inner, inner, faults)
            thoughts.append("".join(inner))
        else:
            thoughts.append(faults.text(part, key, where, empty=True))
    else:
        cure = "only parts of type 'text' can be trained on"
        faults.add(f"{where}.type", f"{is_what(kind)}; {cure}")
