"""The keywords of JSON schemas that grammars use, and the subschemas of a schema."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.datasets.tools import without_nulls
from core.errors import InvalidRequest

UPPER, LOWER = ("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum")
DATA = ("const", "enum", "default", "examples")
"""Their values are never schemas."""
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Their values map names to schemas; the names are not keywords."""


def schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and its subschemas."""
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts.extend(part)
        elif isinstance(part, Mapping):
            yield part
            for key, value in part.items():
                if key in NAMED and isinstance(value, Mapping):
                    parts.extend(value.values())
                elif key not in DATA:
                    parts.append(value)


def without_null_keys(schema: Any) -> Any:
    """Return a tool's schema as in prompts, without null keys. Only `const` may be null."""
    if isinstance(schema, list):
        return [without_null_keys(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            named = {name: each for name, each in value.items() if each is not None}
            kept[key] = {name: without_null_keys(each) for name, each in named.items()}
        elif value is not None or key == "const":
            kept[key] = without_nulls(value) if key in DATA else without_null_keys(value)
    return kept


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unfit(reason: str, param: str) -> InvalidRequest:
    """Return the error for a schema that cannot constrain decoding."""
    return InvalidRequest(
        f"This JSON schema is not supported: {reason[:500]}",
        param=param,
        code="invalid_json_schema",
    )
