"""The items of a conversation, as they are stored, listed and sent back by clients.

Clients send items in many forms: messages without a type, content as a string or as parts, items of
earlier answers with everything that was in them. Each becomes one complete item of OpenAI's API.
Fields that do not matter to a model are dropped without an error.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import InvalidRequest
from core.records.ids import ItemPrefix, new_item_id

Item = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text")
MAX_ID_CHARACTERS = 255


def given_items(given: str | Sequence[Mapping[str, Any]], names: Mapping[str, Item]) -> list[Item]:
    """Return the items of a request's `input`; a string is a message of the user.

    `names` has the items that may be referred to, by id. Raises InvalidRequest with the path of
    the invalid field.
    """
    if isinstance(given, str):
        return [_message({"role": "user", "content": given}, "input")] if given else []
    return [_item(item, f"input[{index}]", names) for index, item in enumerate(given)]


def references(given: str | Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the items that a request's `input` refers to."""
    if isinstance(given, str):
        return []
    return [str(item.get("id")) for item in given if _type_of(item) == "item_reference"]


def _item(item: Mapping[str, Any], where: str, names: Mapping[str, Item]) -> Item:
    kind = _type_of(item)
    if kind == "item_reference":
        return _referred(item, where, names)
    if kind not in _PARSERS:
        raise _invalid(
            f"Items of type {kind[:64]!r} are not supported; use one of "
            f"{', '.join(_PARSERS)}, item_reference.",
            f"{where}.type",
        )
    return _PARSERS[kind](item, where)


def _type_of(item: Mapping[str, Any]) -> str:
    """Return the type of an item. Messages and references may omit it."""
    if item.get("type") is not None:
        return str(item["type"])
    return "message" if "role" in item else "item_reference" if "id" in item else ""


def _referred(item: Mapping[str, Any], where: str, names: Mapping[str, Item]) -> Item:
    id_ = _text(item, "id", where)
    if id_ not in names:
        raise InvalidRequest(
            f"Item with id {id_!r} not found. Items are kept only in stored responses: set store "
            "to true, or send the item itself.",
            param=where,
            code="item_not_found",
        )
    return names[id_]


def _message(item: Mapping[str, Any], where: str) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise _invalid(f"The role must be one of {', '.join(_ROLES)}.", f"{where}.role")
    content = item.get("content")
    path = f"{where}.content"
    if isinstance(content, str):
        texts = [_text(item, "content", where)]
    elif isinstance(content, list):
        texts = [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]
    else:
        raise _invalid("The content must be a string or a list of parts.", path)
    return {
        "id": _id(item, "msg"),
        "type": "message",
        "role": role,
        "status": "completed",
        "content": [_content_of(role, text) for text in texts],
    }


def _content_of(role: str, text: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _part(part: object, where: str) -> str:
    """Return the text of a part of a message, or of the output of a call."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _TEXT_PARTS:
        return _text(part, "text", where)
    if isinstance(part, Mapping) and kind == "refusal":
        return _text(part, "refusal", where)
    raise InvalidRequest(
        f"Parts of type {str(kind)[:64]!r} are not supported. Models read text only: use "
        "'input_text'.",
        param=where,
        code="unsupported_content",
    )


def _function_call(item: Mapping[str, Any], where: str) -> Item:
    return {
        "id": _id(item, "fc"),
        "type": "function_call",
        "status": "completed",
        "call_id": _text(item, "call_id", where),
        "name": _text(item, "name", where),
        "arguments": _text(item, "arguments", where),
    }


def _function_call_output(item: Mapping[str, Any], where: str) -> Item:
    output = item.get("output")
    path = f"{where}.output"
    if isinstance(output, list):
        parts = [_part(part, f"{path}[{index}]") for index, part in enumerate(output)]
        output = "".join(parts)
    else:
        output = _text(item, "output", where)
    return {
        "id": _id(item, "fco"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": _text(item, "call_id", where),
        "output": output,
    }


def _reasoning(item: Mapping[str, Any], where: str) -> Item:
    """Return the reasoning of an earlier answer, which is in its content or in its summary."""
    return {
        "id": _id(item, "rs"),
        "type": "reasoning",
        "summary": _reasoning_parts(item, "summary", "summary_text", where),
        "content": _reasoning_parts(item, "content", "reasoning_text", where),
        "status": "completed",
    }


def _reasoning_parts(item: Mapping[str, Any], key: str, kind: str, where: str) -> list[Item]:
    parts = item.get(key) or []
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise _invalid(f"The {key} must be a list of parts.", f"{where}.{key}")
    return [
        {"type": kind, "text": _text(part, "text", f"{where}.{key}[{index}]")}
        for index, part in enumerate(parts)
    ]


_PARSERS: dict[str, Callable[[Mapping[str, Any], str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _id(item: Mapping[str, Any], prefix: ItemPrefix) -> str:
    """Return the id that a client sent back, or a new one."""
    id_ = item.get("id")
    is_usable = isinstance(id_, str) and id_.isascii() and 0 < len(id_) <= MAX_ID_CHARACTERS
    return str(id_) if is_usable else new_item_id(prefix)


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    text = item.get(key)
    if not isinstance(text, str):
        raise _invalid(f"{key} must be a string.", f"{where}.{key}")
    if not text.isascii() and not _is_unicode(text):
        raise _invalid(f"{key} is not valid Unicode.", f"{where}.{key}")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _invalid(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value")
