"""Limits for the cost of a JSON schema: to compile it, and per generated token of all streams."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from core.engine.text.pattern_cost import TooCostly, refuse_costly_pattern
from core.engine.text.schema_keywords import is_number, unfit

MAX_SCHEMA_CHARACTERS = 32_768
MAX_LITERAL_CHARACTERS = 4096
"""Of one literal or pattern: its length is a cost per token."""

MAX_MULTIPLE_OF = 20_000
"""The sum over a schema. Each unit costs an answer up to two grammar states, of at most 50,000."""


def refuse_too_costly(schemas: list[Any], param: str) -> None:
    """Reject schemas that compile slowly or delay every token of all streams."""
    characters = sum(len(json.dumps(schema)) for schema in schemas)
    if characters > MAX_SCHEMA_CHARACTERS:
        raise unfit(f"it has {characters} characters; the limit is {MAX_SCHEMA_CHARACTERS}", param)
    multiples = 0
    for schema in schemas:
        parts = list(_objects(schema))
        for part in parts:
            _refuse_long_literals(part, param)
            _refuse_costly_patterns(part, param)
        multiples += _states_of_multiples(parts)
    if multiples > MAX_MULTIPLE_OF:
        raise unfit(
            f"the sum of all multipleOf, without points, must be at most {MAX_MULTIPLE_OF}; "
            "with anyOf, oneOf or allOf, their least common multiple counts",
            param,
        )


def _states_of_multiples(parts: list[dict[str, Any]]) -> int:
    """Return the number of remainders that a grammar tracks; with choices, all of them jointly."""
    given = [part["multipleOf"] for part in parts if is_number(part.get("multipleOf"))]
    if any(abs(each) > 10**9 for each in given):
        return MAX_MULTIPLE_OF + 1
    whole = [_without_point(each) for each in given if each == each]
    if any({"anyOf", "oneOf", "allOf"} & part.keys() for part in parts):
        return math.lcm(*whole) if whole else 0
    return sum(whole)


def _without_point(multiple: float) -> int:
    number = Decimal(str(multiple)).normalize()
    return abs(int(number.scaleb(max(-int(number.as_tuple().exponent), 0))))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield part
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)


def _refuse_long_literals(schema: dict[str, Any], param: str) -> None:
    named = schema.get("enum")
    choices = named if isinstance(named, list) else []
    literals = [schema.get("const"), schema.get("pattern"), *choices]
    longest = max((len(each) for each in (*literals, *schema) if isinstance(each, str)), default=0)
    if longest > MAX_LITERAL_CHARACTERS:
        raise unfit(
            f"a const, enum, pattern or name has {longest} characters; the limit is "
            f"{MAX_LITERAL_CHARACTERS}",
            param,
        )


def _refuse_costly_patterns(schema: dict[str, Any], param: str) -> None:
    named = schema.get("patternProperties")
    names = named if isinstance(named, dict) else {}
    for pattern in (schema.get("pattern"), *names):
        if isinstance(pattern, str):
            try:
                refuse_costly_pattern(pattern)
            except TooCostly as problem:
                raise unfit(f"a pattern is too costly: {problem}", param) from None
