"""Adapts the numbers of a JSON schema to llguidance, which uses 64-bit integers and doubles.

Beyond those, llguidance rejects harmless bounds (the largest 64-bit integer), generates other
numbers than those of a const, or overflows its stack.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.engine.text.schema_keywords import DATA, LOWER, NAMED, UPPER, is_number, unfit
from core.engine.text.structured_output import MAX_DIGITS

GREATEST_BOUND = 10**18
"""Of a number; llguidance fails on larger ranges of doubles."""
GREATEST_INTEGER = 2**63 - 1
LEAST_INTEGER = -(2**63) + 1024
"""Of an integer bound, which llguidance reads as a double that must fit into 64 bits."""
GREATEST_COUNT = 1_000_000
GREATEST_LITERAL = 2**63 - 1

_MOST = ("maxLength", "maxItems", "maxProperties")
_LEAST = ("minLength", "minItems", "minProperties")


def countable(schema: Any, param: str) -> Any:
    """Return a schema with bounds and values that llguidance supports, or raise InvalidRequest."""
    if isinstance(schema, list):
        return [countable(each, param) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    least, greatest = _range_of(schema)
    fit: dict[str, Any] = {}
    for key, value in schema.items():
        if key in DATA:
            _refuse_uncounted(value, key, param)
            fit[key] = value
        elif key in NAMED and isinstance(value, Mapping):
            fit[key] = {name: countable(each, param) for name, each in value.items()}
        elif is_number(value) and key in UPPER + LOWER:
            if not _bounds_nothing(schema, key, value):
                fit[key] = _bound(key, value, least, greatest, param)
        elif is_number(value) and key in _MOST + _LEAST:
            count = _count(key, value, param)
            if count is not None:
                fit[key] = count
        else:
            fit[key] = countable(value, param)
    return fit if schema.get("type") == "integer" else _without_the_excluded(fit, param)


def _without_the_excluded(schema: dict[str, Any], param: str) -> dict[str, Any]:
    """Return a schema whose bounds exclude an integer that llguidance would wrongly allow.

    For 0 < x < 0.5 it allows 0: the integer at the edge of a range within one unit.
    """
    numbers = {key: schema[key] for key in LOWER + UPPER if is_number(schema.get(key))}
    least = max((numbers[key] for key in LOWER if key in numbers), default=None)
    most = min((numbers[key] for key in UPPER if key in numbers), default=None)
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
        raise unfit(f"its bounds {least} and {most} are too close together", param)
    return fit


def _range_of(schema: Mapping[str, Any]) -> tuple[int, int]:
    """Return the smallest and largest supported bound for the type of a schema."""
    if schema.get("type") == "integer":
        return LEAST_INTEGER, GREATEST_INTEGER
    return -GREATEST_BOUND, GREATEST_BOUND


def _bounds_nothing(schema: Mapping[str, Any], key: str, value: float) -> bool:
    """Return whether a bound is beyond all integers of the allowed number of digits."""
    outward = value if key in UPPER else -value
    return schema.get("type") == "integer" and outward >= 10**MAX_DIGITS


def with_bounds(schema: Any) -> Any:
    """Return a schema with bounds for all integers, for a server that does not limit digits.

    Uncertain models generate digits without end.
    """
    if isinstance(schema, list):
        return [with_bounds(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    bounded = {
        key: {name: with_bounds(each) for name, each in value.items()}
        if key in NAMED and isinstance(value, Mapping)
        else value
        if key in DATA
        else with_bounds(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "integer" and "multipleOf" not in schema:
        if not set(LOWER) & schema.keys():
            bounded["minimum"] = LEAST_INTEGER
        if not set(UPPER) & schema.keys():
            bounded["maximum"] = GREATEST_INTEGER
    return bounded


def _bound(key: str, value: float, least: int, greatest: int, param: str) -> float:
    """Return a supported bound of numbers."""
    if value < least if key in UPPER else value > greatest:
        raise unfit(
            f"{key} is {value}, which excludes every number between {least} and {greatest}",
            param,
        )
    return max(least, min(greatest, value))


def _count(key: str, value: float, param: str) -> int | None:
    """Return a supported bound of a length; None if it excludes nothing."""
    if value < 0 or (isinstance(value, float) and not value.is_integer()):
        raise unfit(f"{key} is {value}; it must be an integer", param)
    if value <= GREATEST_COUNT:
        return int(value)
    if key in _MOST:
        return None
    raise unfit(f"{key} must be at most {GREATEST_COUNT}", param)


def _refuse_uncounted(value: Any, key: str, param: str) -> None:
    """Reject constant integers that llguidance cannot represent, because it reads doubles."""
    if key not in ("const", "enum"):
        return
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
        elif is_number(part) and isinstance(part, int) and abs(part) > GREATEST_LITERAL:
            raise unfit(f"the integer {part} in {key} does not fit into 64 bits", param)
