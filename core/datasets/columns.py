"""Maps the columns of a file to the keys of a known layout.

An upload or a job gives a mapping such as {"prompt": "question", "completion": "answer"}. A value
is the name of a column, or a path into one, such as `answers.text[0]`.
"""

import re
from collections.abc import Iterable, Mapping

from core.datasets.json_values import JsonObject, Row
from core.datasets.layouts import KEYS, LAYOUTS
from core.datasets.row_errors import RowError, column_name, describe, joined, nearest
from core.errors import InvalidRequest

MAX_COLUMN_CHARACTERS = 200

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]")


def require_known_keys(columns: Mapping[str, str]) -> None:
    """Raise InvalidRequest for a mapping with unknown keys or invalid column names."""
    for key, column in columns.items():
        if key not in KEYS:
            hint = nearest(key, KEYS) or f"use one of {', '.join(KEYS)}"
            raise InvalidRequest(
                f"columns has the unknown key {joined('', key)!r}; {hint}. "
                "Write each entry as known key: name of your column.",
                param="columns",
                code="invalid_value",
            )
        if not 0 < len(column) <= MAX_COLUMN_CHARACTERS or "\0" in column:
            raise InvalidRequest(
                f"columns.{key} {describe(column)}; write a column name of 1 to "
                f"{MAX_COLUMN_CHARACTERS} characters.",
                param=f"columns.{key}",
                code="invalid_value",
            )
    _require_one_layout(columns)


def _require_one_layout(columns: Mapping[str, str]) -> None:
    """Raise InvalidRequest for keys that no layout combines: one of them would be unused."""
    layouts = sorted(
        LAYOUTS,
        key=lambda layout: (-len(columns.keys() & set(layout.keys)), len(layout.required)),
    )
    outside = [key for key in columns if key not in layouts[0].keys] if columns else []
    if outside:
        raise InvalidRequest(
            f"columns.{outside[0]} cannot be combined with the other columns: a row with "
            f"{' and '.join(layouts[0].required)} has the keys {', '.join(layouts[0].keys)}. Use "
            f"one of these keys, or remove columns.{outside[0]}.",
            param=f"columns.{outside[0]}",
            code="invalid_value",
        )


def renamed(row: Row, columns: Mapping[str, str]) -> JsonObject:
    """Return the row with the mapped columns under their keys and the others under their names.

    An unmapped column with the name of a mapped key is left out.
    """
    if not columns:
        return dict(row)
    used = {_source_column(row, column) for column in columns.values()}
    others = {name: row[name] for name in row if name not in used and name not in columns}
    return {key: _value(row, column) for key, column in columns.items()} | others


def shadowed(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the unmapped columns that have the name of a mapped key."""
    used = {_source_column(row, column) for column in columns.values()}
    return tuple(name for name in columns if row.get(name) is not None and name not in used)


def in_file_columns(errors: Iterable[RowError], columns: Mapping[str, str]) -> tuple[RowError, ...]:
    """Return the errors of a renamed row with the file's own column names."""
    return tuple(_in_file_column(error, columns) for error in errors)


def missing_columns(columns: Mapping[str, str], present: Iterable[str]) -> dict[str, str]:
    """Return an explanation for each key whose column the file does not have."""
    names = list(present)
    row = dict.fromkeys(names)
    return {
        key: f"{column!r} is not a column of the file; "
        + (nearest(column, names) or f"its columns are {', '.join(names[:20]) or '(none)'}")
        for key, column in columns.items()
        if column_name(_source_column(row, column)) not in row
    }


def base_columns(columns: Mapping[str, str]) -> set[str]:
    """Return every column name that the mapping may refer to."""
    return {name for column in columns.values() for name in (column, _split(column)[0])}


def _in_file_column(error: RowError, columns: Mapping[str, str]) -> RowError:
    field = error.field or ""
    for key, column in columns.items():
        if field == key or field.startswith((f"{key}.", f"{key}[")):
            return RowError(
                column_name(column) + field[len(key) :],
                column_name(column) + error.message[len(key) :],
            )
    return error


def _source_column(row: Row, column: str) -> str:
    """Return the row's column that `column`, a name or a path, reads from."""
    return column if column in row else _split(column)[0]


def _split(column: str) -> tuple[str, list[str | int]]:
    """Return a column's name and the steps of the path into it; no steps if it is a plain name."""
    name = re.split(r"[.\[]", column, maxsplit=1)[0]
    rest = column[len(name) :]
    steps = list(_STEP.finditer(rest))
    if not name or "".join(step[0] for step in steps) != rest:
        return column, []
    return name, [step[1] if step[1] else int(step[2]) for step in steps]


def _value(row: Row, column: str) -> object:
    if column in row:
        return row[column]
    name, steps = _split(column)
    value = row.get(name)
    for step in steps:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else None
    return value
