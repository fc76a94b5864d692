"""JSON as the standard defines it, with bounds, and errors that a person can act on.

Python's parser takes NaN, repeated keys, lone surrogates and integers of any length; each of
them would come back as a failure of tokenizer, template or optimiser, far from its cause.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from core.datasets.json_values import JsonObject

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 4300
"""What Python converts to text and back; templates, messages and storage write integers as text."""

_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} deep; flatten the row"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class BadJson(ValueError):
    """The text is not acceptable JSON; the message says what is wrong, where, and the cure."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def decode(text: str) -> Any:
    """Return the JSON value of `text`; BadJson when it is malformed or breaks a bound."""
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
    place = f"at character {error.pos + 1}"
    if error.msg.startswith("Extra data"):
        return f"something follows the JSON value {place}; write one JSON object only"
    if error.msg.startswith("Invalid control character"):
        return f"a raw control character stands {place}; escape it, as in \\n or \\t"
    return f"{error.msg} {place}; write one complete JSON object"


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
                raise BadJson(f"the key {key[:40]!r} stands twice in one object", field=key[:40])
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
            "an escape between \\ud800 and \\udfff stands without its partner, so it is no "
            "character; write the character itself or both halves"
        ) from None
