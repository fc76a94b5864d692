"""Collecting what is wrong with a row, in words that say where and how to mend it."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

MAX_FAULTS_PER_ROW = 20
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class RowFault:
    """One thing that is wrong with a row; `field` is its path inside, as in messages[0].role."""

    field: str | None
    message: str


class _TooManyFaults(Exception):
    """Looking on would only cost time."""


class Faults:
    """The faults of one row, gathered inside `bounded()`."""

    def __init__(self) -> None:
        self._found: list[RowFault] = []

    @property
    def found(self) -> tuple[RowFault, ...]:
        return tuple(self._found)

    def bounded(self) -> AbstractContextManager[None]:
        """Return a block that a row with `MAX_FAULTS_PER_ROW` faults leaves at once."""
        return suppress(_TooManyFaults)

    def add(self, field: str, what: str) -> None:
        """Note that `field` … `what` ("is 'assitant'; use one of …")."""
        self._found.append(RowFault(field, f"{field} {what}"))
        if len(self._found) == MAX_FAULTS_PER_ROW:
            raise _TooManyFaults

    def unknown_keys(self, row: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        """Note every key that is not in `known`, with the nearest one that is."""
        names = list(known)
        for key in row:
            if key not in names:
                field = joined(where, key)
                cure = nearest(key, names) or f"remove it, or use one of {', '.join(names)}"
                self.add(field, f"is not a known key; {cure}")

    def text(
        self, row: Mapping[str, Any], key: str, where: str = "", *, empty: bool = False
    ) -> str:
        """Return the string under a key; "" and a fault when there is none, or an empty one."""
        value = row.get(key)
        if not isinstance(value, str):
            self.add(joined(where, key), f"{is_what(value)}; write a string")
        elif not value and not empty:
            self.add(joined(where, key), "is an empty string; write some text")
        return value if isinstance(value, str) else ""


def joined(where: str, key: str) -> str:
    """Return the path of a key inside the object at path `where`."""
    name = key if len(key) <= _SHOWN_CHARACTERS else key[:_SHOWN_CHARACTERS] + "…"
    return f"{where}.{name}" if where else name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return "perhaps you mean …" when a known name is near enough."""
    matches = get_close_matches(name[:_SHOWN_CHARACTERS], islice(known, 100), n=1)
    return f"perhaps you mean {matches[0]!r}" if matches else None


def is_what(value: Any) -> str:
    """Return what a JSON value is, in a few words whatever its size: "is 'assitant'"."""
    match value:
        case None:
            return "is missing"
        case bool():
            return f"is {str(value).lower()}"
        case str():
            cut = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
            return f"is {cut!r}"
        case list():
            return "is a list" if value else "is an empty list"
        case dict():
            return "is an object"
        case _:
            return f"is {value}"
