"""The JSON types that a schema allows, to parse bare text."""

from collections.abc import Mapping
from typing import Any

_MAX_STEPS = 64
_NAME_OF = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def types_of(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema inside `root` allows; empty if unspecified."""
    found: set[str] = set()
    waiting = [schema]
    for _ in range(_MAX_STEPS):
        if not waiting:
            return found
        part = waiting.pop()
        if not isinstance(part, Mapping):
            return set()  # `true` allows anything
        own = _own_types(part)
        if own:
            found |= own
        elif "$ref" in part:
            waiting.append(_referred(part["$ref"], root))
        elif branches := part.get("anyOf") or part.get("oneOf") or part.get("allOf"):
            waiting.extend(branches if isinstance(branches, list) else [branches])
        else:
            return set()
    return set()


def _own_types(schema: Mapping[str, Any]) -> set[str]:
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    values = schema["enum"] if isinstance(schema.get("enum"), list) else []
    if "const" in schema:
        values = [schema["const"]]
    kinds = {_NAME_OF.get(type(value)) or _kind(value) for value in values}
    return kinds


def _kind(value: Any) -> str:
    return "array" if isinstance(value, list) else "object"


def _referred(reference: Any, root: Mapping[str, Any]) -> Any:
    """Resolve a reference within the schema; external references give `True` (anything)."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    node: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or key not in node:
            return True
        node = node[key]
    return node
