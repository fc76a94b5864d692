"""Collects the errors of a row: which field, what is wrong, and a hint how to fix it."""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from core.datasets.json_values import Row
from core.datasets.misspelled import intended_key
from core.spec.nearest import nearest as closest

MAX_ERRORS_PER_ROW = 20
MAX_UNUSED_PER_ROW = 100
_SHOWN_CHARACTERS = 40
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class RowError:
    """One error of a row; `field` is a path inside the row, such as messages[0].role."""

    field: str | None
    message: str


class _Stop(Exception):
    """Ends the validation of a row; further errors would not help the user."""


class RowErrors:
    """The errors of one row, collected inside `bounded()`, and its ignored keys."""

    def __init__(self) -> None:
        self._found: list[RowError] = []
        self._unused: dict[str, None] = {}

    @property
    def found(self) -> tuple[RowError, ...]:
        return tuple(self._found)

    @property
    def unused(self) -> tuple[str, ...]:
        """The ignored keys, such as `source` and `messages[].annotations`."""
        return tuple(self._unused)

    def bounded(self) -> AbstractContextManager[None]:
        """Return a context that ends early once a row has `MAX_ERRORS_PER_ROW` errors."""
        return suppress(_Stop)

    def add(self, field: str, what: str) -> None:
        """Add the error "`field` `what`", such as "role is 'assitant'; use one of …"."""
        self._found.append(RowError(field, f"{field} {what}"))
        if len(self._found) == MAX_ERRORS_PER_ROW:
            raise _Stop

    def stop(self) -> NoReturn:
        """Leave the `bounded()` context: other errors would follow from those added so far."""
        raise _Stop

    def unknown_keys(self, row: Row, known: Iterable[str], where: str) -> None:
        """Ignore keys that are not in `known`; a misspelled key (`misspelled.py`) is an error."""
        names = list(known)
        for key in row:
            if key in names:
                continue
            if (meant := intended_key(key, names, row)) is None:
                self.ignore(key, where)
            else:
                hint = f"rename it to {meant!r} or remove it"
                self.add(joined(where, key), f"is not a known key; {hint}")

    def ignore(self, key: str, where: str) -> None:
        """Record that the value under `key` is not used."""
        if len(self._unused) < MAX_UNUSED_PER_ROW:
            self._unused[column_name(_INDEX.sub("[]", joined(where, key)))] = None

    def text(self, row: Row, key: str, where: str = "", *, empty: bool = False) -> str:
        """Return the string under a key; add an error and return "" if it is missing or empty."""
        value = row.get(key)
        if not isinstance(value, str):
            self.add(joined(where, key), f"{describe(value)}; write a string")
        elif not value and not empty:
            self.add(joined(where, key), "is an empty string; write some text")
        return value if isinstance(value, str) else ""


def joined(where: str, key: str) -> str:
    """Return the path of a key inside the object at path `where`."""
    name = key if len(key) <= _SHOWN_CHARACTERS else key[:_SHOWN_CHARACTERS] + "…"
    return f"{where}.{name}" if where else name


def column_name(name: str) -> str:
    """Return a name as reports show it: shortened, and storable in every database."""
    return joined("", name).replace("\0", "\N{REPLACEMENT CHARACTER}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the hint "the closest match is …" if a known name is similar."""
    matches = closest(name[:_SHOWN_CHARACTERS], islice(known, 100))
    return f"the closest match is {matches[0]!r}" if matches else None


def describe(value: object) -> str:
    """Return a short description of a JSON value of any size, such as "is 'assitant'"."""
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
