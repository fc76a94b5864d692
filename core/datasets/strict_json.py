"""Decodes standard JSON within limits, with error messages that users can act on.

Python's parser accepts NaN, repeated keys, lone surrogates and integers of any length. Each would
later fail in the tokenizer, the template or the optimizer, far from its cause.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from core.datasets.json_values import JsonObject

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 4300
"""Python's limit for conversion to text; templates, messages and storage write integers as text."""

_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} deep; flatten the row"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJson(ValueError):
    """The text is not valid JSON within the limits; the message has the position and a hint."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def decode(text: str) -> Any:
    """Return the JSON value of `text`; BadJson if it is malformed or exceeds a limit."""
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(_explained(error)) from None
    except RecursionError:
        raise BadJson(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(value):
        raise BadJson(_TOO_DEEP)
    if _SURROGATE_ESCAPE.search(text):
        _refuse_lone_surrogates(value)
    return value


def _explained(error: json.JSONDecodeError) -> str:
    position = f"at character {error.pos + 1}"
    if error.msg.startswith("Extra data"):
        return f"extra text after the JSON value {position}; write only one JSON object"
    if error.msg.startswith("Invalid control character"):
        return f"unescaped control character {position}; escape it, as in \\n or \\t"
    return f"{error.msg} {position}; write one complete JSON object"


def _integer(digits: str) -> int:
    if (length := len(digits.lstrip("-"))) > MAX_INTEGER_DIGITS:
        raise BadJson(
            f"an integer has {length} digits, more than {MAX_INTEGER_DIGITS}; write it as a string"
        )
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadJson(f"the number {text[:40]} is too large; write it as a string")
    return value


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON; use null or a string")


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadJson(
                    f"the key {key[:40]!r} is in one object twice; remove one", field=key[:40]
                )
            seen.add(key)
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_constant,
)


def _too_deep(value: object) -> bool:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in _containers(parent.values() if isinstance(parent, dict) else parent)
        ]
    return bool(level)


def _containers(values: Iterable[object]) -> list[dict[str, object] | list[object]]:
    return [value for value in values if isinstance(value, dict | list)]


def _refuse_lone_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadJson(
            "an escape between \\ud800 and \\udfff is half of a surrogate pair; write the "
            "character itself or both escapes"
        ) from None
