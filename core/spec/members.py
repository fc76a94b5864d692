"""The members of a union of specs, and tables that must have an entry for each.

An incomplete table fails when its module is imported, so a new strategy, objective or task never
falls back to a default after hours of training.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

Key = TypeVar("Key", bound=str)
Value = TypeVar("Value")


def members(union: Any) -> tuple[Any, ...]:
    """Return the classes of a union, or the strings of a literal, without their annotations."""
    if get_origin(union) is Annotated:
        return members(get_args(union)[0])
    parts = get_args(union)
    if not parts:
        return (union,)
    return tuple(member for part in parts for member in members(part))


def types_of(union: Any) -> tuple[str, ...]:
    """Return the `type` of each member, or the strings of a literal."""
    return tuple(
        member if isinstance(member, str) else member.model_fields["type"].default
        for member in members(union)
    )


def for_each(union: Any, table: Mapping[Key, Value]) -> dict[Key, Value]:
    """Return the table by `type`; TypeError unless it has exactly the members of the union."""
    wanted, there = set(types_of(union)), set[str](table)
    if missing := sorted(wanted - there):
        raise TypeError(f"A table has no entry for {', '.join(missing)}. Add it.")
    if extra := sorted(there - wanted):
        raise TypeError(f"A table has an entry for {', '.join(extra)}, which is not a member.")
    return dict(table)
