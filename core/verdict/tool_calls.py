"""Whether the tool calls of an answer are those of the row."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


def is_same_calls(wanted: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether both have the same calls, by name and arguments.

    The order of parallel calls and of the keys of arguments has no meaning. Numbers are equal by
    value (1 and 1.0), and never equal to texts or booleans. Every key has to be there.
    """
    rest = [_parts(call) for call in made]
    for call in wanted:
        parts = _parts(call)
        match = next((index for index, other in enumerate(rest) if _equal(parts, other)), None)
        if match is None:
            return False
        del rest[match]
    return not rest


def is_same_names(wanted: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether both call the same functions, as often, in any order."""
    return sorted(map(_name, wanted)) == sorted(map(_name, made))


def _name(call: Mapping[str, Any]) -> str:
    return str(call.get("function", {}).get("name", ""))


def _parts(call: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name and the arguments as JSON; arguments that are no JSON stay a text."""
    arguments = call.get("function", {}).get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments) if arguments.strip() else {}
    return _name(call), arguments if arguments is not None else {}


def _equal(one: Any, other: Any) -> bool:
    """Compare JSON values. In Python alone, True equals 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
