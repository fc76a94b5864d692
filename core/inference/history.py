"""Cleans the messages of a request: what servers and clients add to them is used or dropped.

Programs send back the messages of earlier answers with everything that a server, a client or a
framework has put into them. Datasets stay strict (`core/datasets/chat.py`); a conversation passes
through here first, and is then read by the same code as a dataset.

Kept are the fields of OpenAI's messages. Reasoning under any name becomes `reasoning_content`. A
missing id of a call is filled in. Every other field is dropped (`parsed` and `parsed_arguments` of
OpenAI's clients, `index` of stream chunks, `provider_specific_fields` of LiteLLM, `id`, …), but one
that looks like a misspelling of a missing field is an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.datasets.misspelled import intended_key
from core.errors import InvalidRequest

Message = dict[str, Any]

_KEPT = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "name", "refusal", "tool_calls", "function_call", "weight"),
    "tool": ("role", "content", "name", "tool_call_id"),
    "function": ("role", "content", "name"),
}
_CALL = ("id", "type", "function")
_FUNCTION = ("name", "arguments")
_MAY_BE_EMPTY = ("assistant", "tool", "function")
"""Roles of messages without content: calls, and results of functions that return nothing."""

MOST_CALLS = 128
"""Calls of an answer that results without an id are matched with; bounds the time."""
MOST_UNKNOWN = 100
"""Different names of fields in a request that are searched for misspellings; bounds the time."""

_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
"""In order of precedence. The last two are the lists of OpenRouter and LiteLLM."""
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The types of parts with text, and the key of it."""
_THOUGHT_PARTS = ("thinking", "reasoning")


@dataclass
class _Seen:
    """What earlier messages of the request have."""

    unanswered: list[tuple[str, str]] = field(default_factory=list)
    """The (id, name) of the calls that have no result yet."""
    unknown: set[str] = field(default_factory=set)
    """The names of fields that were searched for misspellings."""


def cleaned(messages: Sequence[object]) -> tuple[Message, ...]:
    """Return the messages of a request as OpenAI defines them.

    Raises InvalidRequest, with the path of the field, for a misspelled field and for content that
    is not text. Whatever else is wrong with a message, its parser reports.
    """
    seen = _Seen()
    return tuple(
        _message(message, f"messages[{index}]", seen) for index, message in enumerate(messages)
    )


def _message(message: object, where: str, seen: _Seen) -> Message:
    if not isinstance(message, dict):
        raise InvalidRequest(
            f"{where} must be an object with role and content.", param=where, code="invalid_value"
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEPT:
        return message  # the parser reports it
    kept = _only(message, (*_KEPT[role], *_REASONING), where, seen)
    reasoning = _reasoning(kept)
    kept = {key: value for key, value in kept.items() if key not in _REASONING}
    if role == "assistant":
        _clean_answer(kept, message, where, seen)
        if reasoning:
            kept["reasoning_content"] = reasoning
    if role == "tool":
        _answer_a_call(kept, seen.unanswered)
    if isinstance(kept.get("content"), list):
        kept["content"] = [
            _part(part, f"{where}.content[{index}]", seen)
            for index, part in enumerate(kept["content"])
        ]
    elif "content" not in kept and role in _MAY_BE_EMPTY and "refusal" not in kept:
        kept["content"] = ""
    return kept


def _clean_answer(kept: Message, message: Message, where: str, seen: _Seen) -> None:
    """Clean the calls of an assistant message in place."""
    if message.get("audio") and not kept.get("content"):
        raise InvalidRequest(
            "Earlier answers in audio are not known here; send their text as content.",
            param=f"{where}.audio",
            code="unsupported_parameter",
        )
    for key in ("tool_calls", "function_call"):
        if not kept.get(key):
            kept.pop(key, None)
    calls = kept.get("tool_calls")
    if isinstance(calls, list):
        kept["tool_calls"] = [
            _call(call, f"{where}.tool_calls[{index}]", seen) for index, call in enumerate(calls)
        ]
        seen.unanswered = [
            (str(call.get("id") or ""), str(call["function"].get("name")))
            for call in kept["tool_calls"][:MOST_CALLS]
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
        ]
    if isinstance(kept.get("function_call"), dict):
        kept["function_call"] = _function(kept["function_call"], f"{where}.function_call", seen)


def _answer_a_call(kept: Message, unanswered: list[tuple[str, str]]) -> None:
    """Give a result without an id that of the call with its name, or of the first call."""
    given = kept.get("tool_call_id")
    if given:
        unanswered[:] = [call for call in unanswered if call[0] != given]
        return
    kept.pop("tool_call_id", None)
    named = [call for call in unanswered if call[1] == kept.get("name")]
    call = next(iter(named or unanswered), None)
    if call is None:
        return  # the parser reports it
    unanswered.remove(call)
    if call[0]:
        kept["tool_call_id"] = call[0]


def _call(call: object, where: str, seen: _Seen) -> object:
    if not isinstance(call, dict):
        return call
    kept = _only(call, _CALL, where, seen)
    kept["type"] = kept.get("type") or "function"
    if isinstance(kept.get("function"), dict):
        kept["function"] = _function(kept["function"], f"{where}.function", seen)
    return kept


def _function(function: Message, where: str, seen: _Seen) -> Message:
    """Return a called function; no arguments at all, or null, are those of a call without any."""
    kept = _only(function, _FUNCTION, where, seen)
    if kept.get("arguments") in (None, "", "null"):
        kept["arguments"] = "{}"
    return kept


def _part(part: object, where: str, seen: _Seen) -> object:
    """Return a part of a content as one of type text, thinking or reasoning."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if not isinstance(kind, str):
        return part  # the parser reports it
    if kind in _THOUGHT_PARTS:
        return _only(part, ("type", kind, "text"), where, seen)
    if kind in _TEXT_PARTS:
        key = _TEXT_PARTS[kind]
        return {"type": "text", "text": _only(part, ("type", key), where, seen).get(key)}
    raise InvalidRequest(
        f"{where} is of type {kind[:64]!r}. This service reads text only; send parts of type "
        "'text'.",
        param=f"{where}.type",
        code="unsupported_parameter",
    )


def _reasoning(message: Message) -> str:
    """Return the reasoning of a message from the first field that has any."""
    found = (_thought(message.get(key)) for key in _REASONING)
    return next((thought for thought in found if thought), "")


def _thought(value: object) -> str:
    """Return the text of a reasoning: one text, or a list of blocks. Encrypted ones have none."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    texts = (
        block.get(key)
        for block in value
        if isinstance(block, dict)
        for key in ("text", "thinking", "summary")
    )
    return "".join(text for text in texts if isinstance(text, str))


def _only(value: Message, known: Iterable[str], where: str, seen: _Seen) -> Message:
    """Return the known fields that are not null; InvalidRequest for a misspelled one."""
    kept = {key: value[key] for key in known if value.get(key) is not None}
    for key in value:
        if key in kept or value[key] is None:
            continue
        if key not in seen.unknown and len(seen.unknown) == MOST_UNKNOWN:
            continue
        seen.unknown.add(key)
        if (meant := intended_key(key, known, value)) is not None:
            raise InvalidRequest(
                f"Unknown parameter: {f'{where}.{key}'!r}. Did you mean {meant!r}?",
                param=f"{where}.{key}",
                code="unknown_parameter",
            )
    return kept
