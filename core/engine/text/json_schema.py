"""JSON schemas as a grammar can follow them: bounded in cost, and with numbers that it can count.

llguidance counts in 64 bits and in doubles. Beyond that it refuses what is harmless (the greatest
integer of 64 bits as a bound), writes other numbers than those of a const, and overflows its stack.
"""

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urljoin

from core.datasets.tools import without_nulls
from core.engine.text.answer_form import MOST_DIGITS
from core.errors import InvalidRequest

MAX_SCHEMA_CHARACTERS = 32_768
MAX_LITERAL_CHARACTERS = 4096
"""Of one text that an answer has to repeat or match: every token of it costs in proportion."""

MAX_MULTIPLE_OF = 20_000
"""Of all together. An answer visits up to two states for each, and may visit 50,000 of all kinds.
"""

MAX_REFERENCES = 100
"""In a row."""

GREATEST_BOUND = 10**18
"""Of a number: beyond, llguidance fails on a range of doubles."""
GREATEST_INTEGER = 2**63 - 1
LEAST_INTEGER = -(2**63) + 1024
"""Of a bound of integers: it is read as a double, and has to fit 64 bits then."""
GREATEST_COUNT = 1_000_000
GREATEST_LITERAL = 2**63 - 1

_UPPER, _LOWER = ("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum")
_MOST = ("maxLength", "maxItems", "maxProperties")
_LEAST = ("minLength", "minItems", "minProperties")
_DATA = ("const", "enum", "default", "examples")
"""Their values are no schemas, whatever they look like."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Their values are schemas by names, which are no keywords."""


def fitted(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """Return a schema with bounds that can be counted; InvalidRequest for one that costs too much.

    A bound that no answer should reach is drawn in, never out.
    """
    refuse_too_costly([schema], param)
    _refuse_ids_that_recur(schema, param)
    _refuse_references_without_end(schema, param)
    return _mapped(schema, param)


def refuse_too_costly(schemas: list[Any], param: str) -> None:
    """Refuse what would take long to compile, or hold up every token of everybody's answers."""
    characters = sum(len(json.dumps(schema)) for schema in schemas)
    if characters > MAX_SCHEMA_CHARACTERS:
        raise unfit(f"it has {characters} characters, and may have {MAX_SCHEMA_CHARACTERS}", param)
    multiples = 0
    for schema in schemas:
        parts = list(_objects(schema))
        for part in parts:
            _refuse_long_literals(part, param)
        multiples += _states_of_multiples(parts)
    if multiples > MAX_MULTIPLE_OF:
        raise unfit(
            f"multipleOf may be {MAX_MULTIPLE_OF} at most, without the point and all added up; "
            "beside anyOf, oneOf or allOf their least common multiple counts",
            param,
        )


def _states_of_multiples(parts: list[dict[str, Any]]) -> int:
    """Return how many remainders a grammar tells apart; those of choices it tells apart at once."""
    given = [part["multipleOf"] for part in parts if _is_number(part.get("multipleOf"))]
    if any(abs(each) > 10**9 for each in given):
        return MAX_MULTIPLE_OF + 1
    whole = [_without_point(each) for each in given if each == each]
    if any({"anyOf", "oneOf", "allOf"} & part.keys() for part in parts):
        return math.lcm(*whole) if whole else 0
    return sum(whole)


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and those inside it, which values and names are not."""
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts.extend(part)
        elif isinstance(part, Mapping):
            yield part
            for key, value in part.items():
                if key in _NAMED and isinstance(value, Mapping):
                    parts.extend(value.values())
                elif key not in _DATA:
                    parts.append(value)


def _refuse_ids_that_recur(schema: Mapping[str, Any], param: str) -> None:
    """Refuse schemas of one $id: llguidance takes the inner one for the whole."""
    base = schema.get("$id")
    seen: set[str] = set()
    for part in _schemas(schema):
        id_ = part.get("$id")
        if isinstance(id_, str):
            whole = urljoin(base, id_) if isinstance(base, str) else id_
            whole = whole.rstrip("#")
            if whole in seen:
                raise unfit(f"the $id {id_} stands in it twice; leave out the inner one", param)
            seen.add(whole)


def _refuse_references_without_end(root: Mapping[str, Any], param: str) -> None:
    """Refuse references that lead back to themselves before any schema says what to write."""
    for part in _schemas(root):
        path: list[int] = []
        if _leads_back(part, root, path, set()):
            raise unfit(
                f"the $ref {part.get('$ref', '')} leads back to itself, and says nothing", param
            )


def _leads_back(part: Any, root: Mapping[str, Any], path: list[int], ended: set[int]) -> bool:
    """Whether what holds at the same place as a schema leads back to a schema on its path."""
    if not isinstance(part, Mapping) or id(part) in ended:
        return False
    if id(part) in path or len(path) == MAX_REFERENCES:
        return True
    path.append(id(part))
    following = []
    if isinstance(part.get("$ref"), str):
        following.append(_referred(part["$ref"], root))
    for key in ("allOf", "anyOf", "oneOf"):
        members = part.get(key)
        if isinstance(members, list):
            following += members
    found = any(_leads_back(each, root, path, ended) for each in following)
    path.pop()
    ended.add(id(part))
    return found


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """Return what a reference by JSON pointer leads to; None for others, or nothing."""
    own = root.get("$id")
    if isinstance(own, str):
        reference = reference.removeprefix(own.rstrip("#"))
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    part: Any = root
    for escaped in unquote(reference[2:]).split("/"):
        name = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, Mapping):
            part = part.get(name)
        else:
            return None
    return part


def without_null_keys(schema: Any) -> Any:
    """Return a tool's schema as prompts show it: a null is no key. Only `const` may be null."""
    if isinstance(schema, list):
        return [without_null_keys(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            named = {name: each for name, each in value.items() if each is not None}
            kept[key] = {name: without_null_keys(each) for name, each in named.items()}
        elif value is not None or key == "const":
            kept[key] = without_nulls(value) if key in _DATA else without_null_keys(value)
    return kept


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
            f"a const, enum, pattern or name has {longest} characters, and may have "
            f"{MAX_LITERAL_CHARACTERS}",
            param,
        )


def _mapped(schema: Any, param: str) -> Any:
    if isinstance(schema, list):
        return [_mapped(each, param) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    least, greatest = _range_of(schema)
    fit: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DATA:
            _refuse_uncounted(value, key, param)
            fit[key] = value
        elif key in _NAMED and isinstance(value, Mapping):
            fit[key] = {name: _mapped(each, param) for name, each in value.items()}
        elif _is_number(value) and key in _UPPER + _LOWER:
            if not _bounds_nothing(schema, key, value):
                fit[key] = _bound(key, value, least, greatest, param)
        elif _is_number(value) and key in _MOST + _LEAST:
            count = _count(key, value, param)
            if count is not None:
                fit[key] = count
        else:
            fit[key] = _mapped(value, param)
    return fit if schema.get("type") == "integer" else _without_the_excluded(fit, param)


def _without_the_excluded(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """Return a schema whose bounds leave out a whole number that llguidance would let through.

    It writes 0 where 0 < x < 0.5: the whole number below a range within one unit, or above it.
    """
    numbers = {key: schema[key] for key in _LOWER + _UPPER if _is_number(schema.get(key))}
    least = max((numbers[key] for key in _LOWER if key in numbers), default=None)
    most = min((numbers[key] for key in _UPPER if key in numbers), default=None)
    if least is None or most is None or not 0 < most - least < 1:
        return schema
    step = Decimal(10) ** (math.floor(math.log10(most - least)) - 6)
    fit = dict(schema)
    if numbers.get("exclusiveMinimum") == least == int(least):
        del fit["exclusiveMinimum"]
        fit["minimum"] = float(Decimal(str(least)) + step)
    if numbers.get("exclusiveMaximum") == most == int(most):
        del fit["exclusiveMaximum"]
        fit["maximum"] = float(Decimal(str(most)) - step)
    if fit.get("minimum") == least == numbers.get("exclusiveMinimum") or (
        fit.get("maximum") == most == numbers.get("exclusiveMaximum")
    ):
        raise unfit(f"its bounds {least} and {most} are too close to tell apart", param)
    return fit


def _range_of(schema: Mapping[str, Any]) -> tuple[int, int]:
    """Return the least and the greatest bound that can be counted for the type of a schema."""
    if schema.get("type") == "integer":
        return LEAST_INTEGER, GREATEST_INTEGER
    return -GREATEST_BOUND, GREATEST_BOUND


def _bounds_nothing(schema: Mapping[str, Any], key: str, value: float) -> bool:
    """Whether an integer has too few digits to reach a bound."""
    outward = value if key in _UPPER else -value
    return schema.get("type") == "integer" and outward >= 10**MOST_DIGITS


def with_bounds(schema: Any) -> Any:
    """Return a schema with bounds for integers that have none, for a server that counts no digits.

    A model in doubt writes digits without end.
    """
    if isinstance(schema, list):
        return [with_bounds(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    bounded = {
        key: {name: with_bounds(each) for name, each in value.items()}
        if key in _NAMED and isinstance(value, Mapping)
        else value
        if key in _DATA
        else with_bounds(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "integer" and "multipleOf" not in schema:
        if not set(_LOWER) & schema.keys():
            bounded["minimum"] = LEAST_INTEGER
        if not set(_UPPER) & schema.keys():
            bounded["maximum"] = GREATEST_INTEGER
    return bounded


def _bound(key: str, value: float, least: int, greatest: int, param: str) -> float:
    """Return a bound of numbers as it can be counted."""
    if value < least if key in _UPPER else value > greatest:
        raise unfit(
            f"{key} is {value}, and leaves no number between {least} and {greatest}",
            param,
        )
    return max(least, min(greatest, value))


def _count(key: str, value: float, param: str) -> int | None:
    """Return a bound of a length as it can be counted; None where it bounds nothing."""
    if value < 0 or (isinstance(value, float) and not value.is_integer()):
        raise unfit(f"{key} is {value}; it has to be a whole number", param)
    if value <= GREATEST_COUNT:
        return int(value)
    if key in _MOST:
        return None
    raise unfit(f"{key} may be {GREATEST_COUNT} at most", param)


def _refuse_uncounted(value: Any, key: str, param: str) -> None:
    """Refuse an integer that an answer would have to repeat and cannot: it is read as a double."""
    if key not in ("const", "enum"):
        return
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
        elif _is_number(part) and isinstance(part, int) and abs(part) > GREATEST_LITERAL:
            raise unfit(f"the integer {part} in {key} does not fit 64 bits", param)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unfit(reason: str, param: str) -> InvalidRequest:
    """Return the error for a schema that answers cannot be held to."""
    return InvalidRequest(
        f"Answers cannot be held to this JSON schema: {reason[:500]}",
        param=param,
        code="invalid_json_schema",
    )
