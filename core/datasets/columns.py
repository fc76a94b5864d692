"""Columns with names of their own: which of them stands for which key of a known form.

A mapping such as {"prompt": "question", "completion": "answer"} comes with an upload or a job. A
column is named as it is, or by a path into it, such as `answers.text[0]`.
"""

import re
from collections.abc import Iterable, Mapping

from core.datasets.faults import RowFault, column_name, is_what, joined, nearest
from core.datasets.forms import FORMS, KEYS
from core.datasets.json_values import JsonObject, Row
from core.errors import InvalidRequest

MAX_COLUMN_CHARACTERS = 200

_PLACE = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]")


def require_known_keys(columns: Mapping[str, str]) -> None:
    """Raise InvalidRequest for a mapping that can name nothing."""
    for key, column in columns.items():
        if key not in KEYS:
            cure = nearest(key, KEYS) or f"use one of {', '.join(KEYS)}"
            raise InvalidRequest(
                f"columns gives a column to {joined('', key)!r}, which is no key of a known form; "
                f"{cure}. Write the key on the left and your column on the right.",
                param="columns",
                code="invalid_value",
            )
        if not 0 < len(column) <= MAX_COLUMN_CHARACTERS or "\0" in column:
            raise InvalidRequest(
                f"columns.{key} {is_what(column)}; write the name of a column, of up to "
                f"{MAX_COLUMN_CHARACTERS} characters.",
                param=f"columns.{key}",
                code="invalid_value",
            )
    _require_one_form(columns)


def _require_one_form(columns: Mapping[str, str]) -> None:
    """Raise InvalidRequest for keys that no form has together: one of them would be unused."""
    forms = sorted(FORMS, key=lambda form: len(columns.keys() & set(form.keys)), reverse=True)
    outside = [key for key in columns if key not in forms[0].keys] if columns else []
    if outside:
        raise InvalidRequest(
            f"columns.{outside[0]} does not go with the other columns: a row with "
            f"{' and '.join(forms[0].required)} has the keys {', '.join(forms[0].keys)}. Use one "
            "of them, or leave it out.",
            param=f"columns.{outside[0]}",
            code="invalid_value",
        )


def renamed(row: Row, columns: Mapping[str, str]) -> JsonObject:
    """Return the row with the mapped columns under their keys, and the others as they are called.

    A column that happens to be called like a mapped key is left out: it is not what is meant.
    """
    if not columns:
        return dict(row)
    used = {_of_row(row, column) for column in columns.values()}
    others = {name: row[name] for name in row if name not in used and name not in columns}
    return {key: _value(row, column) for key, column in columns.items()} | others


def shadowed(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns that are called like a mapped key and are not what is meant."""
    used = {_of_row(row, column) for column in columns.values()}
    return tuple(name for name in columns if row.get(name) is not None and name not in used)


def under_columns(faults: Iterable[RowFault], columns: Mapping[str, str]) -> tuple[RowFault, ...]:
    """Return the faults of a renamed row in the words of its file."""
    return tuple(_under_column(fault, columns) for fault in faults)


def missing_columns(columns: Mapping[str, str], present: Iterable[str]) -> dict[str, str]:
    """Return the keys whose columns are not among those that the rows have, each with why."""
    names = list(present)
    row = dict.fromkeys(names)
    return {
        key: f"{column!r} is no column of the file; "
        + (nearest(column, names) or f"it has {', '.join(names[:20]) or 'none'}")
        for key, column in columns.items()
        if column_name(_of_row(row, column)) not in row
    }


def base_columns(columns: Mapping[str, str]) -> set[str]:
    """Return every name that a column of the file may have to hold what is mapped."""
    return {name for column in columns.values() for name in (column, _split(column)[0])}


def _under_column(fault: RowFault, columns: Mapping[str, str]) -> RowFault:
    field = fault.field or ""
    for key, column in columns.items():
        if field == key or field.startswith((f"{key}.", f"{key}[")):
            return RowFault(
                column_name(column) + field[len(key) :],
                column_name(column) + fault.message[len(key) :],
            )
    return fault


def _of_row(row: Row, column: str) -> str:
    """Return the column of the row that holds what `column` names."""
    return column if column in row else _split(column)[0]


def _split(column: str) -> tuple[str, list[str | int]]:
    """Return the name of a column and the way into it; a name that is no path is its own."""
    name = re.split(r"[.\[]", column, maxsplit=1)[0]
    rest = column[len(name) :]
    places = list(_PLACE.finditer(rest))
    if not name or "".join(place[0] for place in places) != rest:
        return column, []
    return name, [place[1] if place[1] else int(place[2]) for place in places]


def _value(row: Row, column: str) -> object:
    if column in row:
        return row[column]
    name, places = _split(column)
    value = row.get(name)
    for place in places:
        if isinstance(place, str):
            value = value.get(place) if isinstance(value, dict) else None
        else:
            value = value[place] if isinstance(value, list) and place < len(value) else None
    return value
