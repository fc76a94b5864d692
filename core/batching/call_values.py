"""Parses arguments that are not JSON: bare text, loose objects, Python literals. Plain Python."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from core.batching.json_types import types_of

_decoder = json.JSONDecoder()
_PYTHON_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
MAX_DEPTH = 64


class NotAValue(ValueError):
    """The text at this position is not a value of the expected kind."""


def typed(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    """Convert a bare text to a value of the type in the argument's schema.

    Without a type in the schema, the text is parsed as JSON if possible, as templates write it.
    """
    types = types_of(schema, root)
    if types == {"string"}:
        return text
    word = text.strip()
    try:
        value = _PYTHON_WORDS[word] if word in _PYTHON_WORDS else _decoded(word)
    except NotAValue:
        return text
    if types and not _is_of(value, types):
        return text
    return value


def _decoded(text: str) -> Any:
    """Parse a value written as JSON, or as Python by templates that print objects."""
    try:
        return json.loads(text)
    except RecursionError:
        raise NotAValue from None
    except ValueError:
        if text[:1] not in ("[", "{"):
            raise NotAValue from None
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise NotAValue from None
    return value


def _is_of(value: Any, types: set[str]) -> bool:
    match value:
        case bool():
            return "boolean" in types
        case None:
            return "null" in types
        case int():
            return bool({"integer", "number"} & types)
        case float():
            return "number" in types or ("integer" in types and value.is_integer())
        case str():
            return "string" in types
        case list():
            return "array" in types
        case _:
            return "object" in types


class LooseReader:
    """Parses objects with unquoted names, and strings in template-specific quotes.

    With `is_python`, the outer object has parentheses and `=`, as in a Python call.
    """

    def __init__(self, quotes: tuple[str, ...], escapes: bool, *, is_python: bool = False) -> None:
        self._quotes = quotes
        self._escapes = escapes
        self._open, self._close, self._colon = "()=" if is_python else "{}:"

    def arguments(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        """Parse the object at `start`; return it and its end. Raises NotAValue."""
        return self._object(text, start, self._open, self._close, self._colon, 0)

    def _value(self, text: str, start: int, depth: int) -> tuple[Any, int]:
        if depth > MAX_DEPTH:
            raise NotAValue
        start = _after_space(text, start)
        for quote in self._quotes:
            if text.startswith(quote, start):
                return self._text(text, start + len(quote), quote)
        if text.startswith("{", start):
            return self._object(text, start, "{", "}", ":", depth)
        if text.startswith("[", start):
            return self._list(text, start, depth)
        return _bare(text, start)

    def _object(
        self, text: str, start: int, opening: str, closing: str, colon: str, depth: int
    ) -> tuple[dict[str, Any], int]:
        if not text.startswith(opening, start):
            raise NotAValue
        value: dict[str, Any] = {}
        position = _after_space(text, start + 1)
        while not text.startswith(closing, position):
            name, position = self._name(text, position, colon)
            value[name], position = self._value(text, position, depth + 1)
            position = _after_item(text, position, closing)
        return value, position + 1

    def _list(self, text: str, start: int, depth: int) -> tuple[list[Any], int]:
        value = []
        position = _after_space(text, start + 1)
        while not text.startswith("]", position):
            item, position = self._value(text, position, depth + 1)
            value.append(item)
            position = _after_item(text, position, "]")
        return value, position + 1

    def _name(self, text: str, start: int, colon: str) -> tuple[str, int]:
        for quote in self._quotes:
            if text.startswith(quote, start):
                name, end = self._text(text, start + len(quote), quote, f"{colon}")
                break
        else:
            end = text.find(colon, start)
            if end < 0:
                raise NotAValue
            name = text[start:end].strip()
        end = _after_space(text, end)
        if not name or not text.startswith(colon, end):
            raise NotAValue
        return name, end + 1

    def _text(
        self, text: str, start: int, quote: str, followed_by: str = ",)]}"
    ) -> tuple[str, int]:
        """Return a string and its end: the first quote followed by `followed_by` closes it."""
        end = start
        while True:
            end = text.find(quote, end)
            if end < 0:
                raise NotAValue
            escaped = self._escapes and _is_escaped(text, start, end)
            after = _after_space(text, end + len(quote))
            if not escaped and text[after : after + 1] and text[after] in followed_by:
                break
            end += 1
        inner = text[start:end]
        return (_unescaped(inner) if self._escapes else inner), end + len(quote)


def _is_escaped(text: str, start: int, end: int) -> bool:
    slashes = 0
    while end - slashes > start and text[end - slashes - 1] == "\\":
        slashes += 1
    return slashes % 2 == 1


def _unescaped(text: str) -> str:
    parts = []
    position = 0
    while (slash := text.find("\\", position)) >= 0:
        parts.append(text[position:slash])
        letter = text[slash + 1 : slash + 2]
        digits = text[slash + 2 : slash + 6]
        if letter == "u" and len(digits) == 4:
            try:
                parts.append(chr(int(digits, 16)))
                position = slash + 6
                continue
            except ValueError:
                pass
        parts.append(_ESCAPES.get(letter, letter))
        position = slash + 2
    joined = "".join([*parts, text[position:]])
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bare(text: str, start: int) -> tuple[Any, int]:
    for word in (*_PYTHON_WORDS, "None", "null"):
        if text.startswith(word, start):
            return _PYTHON_WORDS.get(word), start + len(word)
    try:
        return _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        raise NotAValue from None


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _after_item(text: str, position: int, closing: str) -> int:
    position = _after_space(text, position)
    if text.startswith(",", position):
        return _after_space(text, position + 1)
    if not text.startswith(closing, position):
        raise NotAValue
    return position
