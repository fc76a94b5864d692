"""Collecting what is wrong with a row, in words that say where and how to mend it."""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import NoReturn

from core.datasets.json_values import Row
from core.datasets.misspelt import meant_by

MAX_FAULTS_PER_ROW = 20
MAX_UNUSED_PER_ROW = 100
_SHOWN_CHARACTERS = 40
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class RowFault:
    """One thing that is wrong with a row; `field` is its path inside, as in messages[0].role."""

    field: str | None
    message: str


class _Enough(Exception):
    """Looking on would only cost time."""


class Faults:
    """The faults of one row, gathered inside `bounded()`, and what of it is passed over."""

    def __init__(self) -> None:
        self._found: list[RowFault] = []
        self._unused: dict[str, None] = {}

    @property
    def found(self) -> tuple[RowFault, ...]:
        return tuple(self._found)

    @property
    def unused(self) -> tuple[str, ...]:
        """The keys that are not read, as in `source` and `messages[].annotations`."""
        return tuple(self._unused)

    def bounded(self) -> AbstractContextManager[None]:
        """Return a block that a row with `MAX_FAULTS_PER_ROW` faults leaves at once."""
        return suppress(_Enough)

    def add(self, field: str, what: str) -> None:
        """Note that `field` … `what` ("is 'assitant'; use one of …")."""
        self._found.append(RowFault(field, f"{field} {what}"))
        if len(self._found) == MAX_FAULTS_PER_ROW:
            raise _Enough

    def stop(self) -> NoReturn:
        """Leave the block of `bounded()`: whatever else is wrong follows from what was noted."""
        raise _Enough

    def unknown_keys(self, row: Row, known: Iterable[str], where: str) -> None:
        """Pass over every key that is not in `known`; a misspelt one (`misspelt.py`) is a fault."""
        names = list(known)
        for key in row:
            if key in names:
                continue
            if (meant := meant_by(key, names, row)) is None:
                self.pass_over(key, where)
            else:
                cure = f"perhaps you mean {meant!r}; rename it, or remove it"
                self.add(joined(where, key), f"is not a known key; {cure}")

    def pass_over(self, key: str, where: str) -> None:
        """Note that what stands under `key` is not used."""
        if len(self._unused) < MAX_UNUSED_PER_ROW:
            self._unused[column_name(_INDEX.sub("[]", joined(where, key)))] = None

    def text(self, row: Row, key: str, where: str = "", *, empty: bool = False) -> str:
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


def column_name(name: str) -> str:
    """Return a name as reports show it: not too long, and storable in every database."""
    return joined("", name).replace("\0", "\N{REPLACEMENT CHARACTER}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return "perhaps you mean …" when a known name is near enough."""
    matches = get_close_matches(name[:_SHOWN_CHARACTERS], islice(known, 100), n=1)
    return f"perhaps you mean {matches[0]!r}" if matches else None


def is_what(value: object) -> str:
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
        case int() if abs(value) >= 10**_SHOWN_CHARACTERS:
            return f"is an integer of more than {_SHOWN_CHARACTERS} digits"
        case _:
            return f"is {value}"
