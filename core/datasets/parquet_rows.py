"""Reads a Parquet file row by row; errors give the row number, from 1, as the line.

Structs become objects, lists become lists, and nulls are dropped, because every struct of a column
has every key. A column of a type that rows cannot hold, such as a time or an image, is not read,
and is an error only if a layout needs it. pyarrow is imported when the first such file is read.

A few bytes of Parquet can expand to gigabytes. Rows are read in batches that are small according to
the file's metadata, page by page and on one thread. False metadata is stopped by the limits of the
child that checks an upload (`bounded.py`), so a file that passed the check fits these limits.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.datasets.chat import KEYS_INSIDE
from core.datasets.json_values import JsonObject
from core.datasets.lines import MAX_LINE_BYTES, Line, invalid_line
from core.datasets.row_errors import column_name
from core.datasets.strict_json import MAX_DEPTH

if TYPE_CHECKING:
    from pyarrow import DataType, Field, RecordBatch
    from pyarrow.parquet import ParquetFile

MAX_COLUMNS = 256
_BATCH_BYTES = 1 << 20
_MAX_BATCH_ROWS = 32  # a repeated text is stored once, so the stored size can be misleading
_READ_BYTES = 1 << 20
_MAX_METADATA_ENTRIES = 100_000  # per list in the file's metadata
_MAX_METADATA_BYTES = 16 << 20

_IN_LIST = "[]"

PARQUET_MARK = b"PAR1"


def read_parquet(path: Path, wanted: Collection[str] | None = None) -> Iterator[Line]:
    """Yield every row in order, numbered from 1; a damaged file ends with an error.

    `wanted` are the columns that must be readable; None: all.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(
            path,
            pre_buffer=False,
            buffer_size=_READ_BYTES,
            thrift_string_size_limit=_MAX_METADATA_BYTES,
            thrift_container_size_limit=_MAX_METADATA_ENTRIES,
            schema_depth_limit=MAX_DEPTH,
            arrow_extensions_enabled=False,
        ) as file:
            leaves = [] if _has_too_many(file) else _leaves(list(file.schema_arrow), ())
            if error := _schema_error(file, leaves, wanted):
                yield invalid_line(1, error)
                return
            unread = tuple(_shown(leaf.path) for leaf in leaves if leaf.unreadable)
            for batch in _batches(file, _paths(file, leaves)):
                for row in _rows(batch):
                    number += 1
                    yield replace(_line(number, row), unread=unread)
    except MemoryError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0][:200]
        yield invalid_line(
            number + 1, f"the Parquet file is damaged here: {first_line}; write it again"
        )
        return
    if number == 0:
        yield invalid_line(1, "the Parquet file has no rows; write one row per example")


def _batches(file: "ParquetFile", leaves: list[str] | None) -> Iterator["RecordBatch"]:
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        row_bytes = max(1, group.total_byte_size) / max(1, group.num_rows)
        rows = min(_MAX_BATCH_ROWS, max(1, int(_BATCH_BYTES / row_bytes)))
        yield from file.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False)


def _rows(batch: "RecordBatch") -> Iterator[JsonObject | None]:
    """Yield the rows of a batch; None for a row with a string that is not UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for index in range(len(batch)):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield None


def _line(number: int, row: JsonObject | None) -> Line:
    if row is None:
        return invalid_line(
            number, "a string of the row is not UTF-8; write the column as UTF-8 text"
        )
    if _size(row) > MAX_LINE_BYTES:
        hint = "split or shorten the row"
        return invalid_line(number, f"the row is longer than {MAX_LINE_BYTES >> 20} MiB; {hint}")
    return Line(number, _plain(row))


def _size(value: object) -> int:
    """Return the approximate size of the value as JSON, in bytes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _size(child) for key, child in value.items())
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _plain(value: Any) -> Any:
    """Drop nulls inside objects; NaN counts as null, because some writers use it so."""
    if isinstance(value, dict):
        plain = {key: _plain(child) for key, child in value.items()}
        return {key: child for key, child in plain.items() if child is not None}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Leaf:
    """A column of plain values, of the table or nested in structs and lists."""

    path: tuple[str, ...]
    """The names from the outermost on; "[]" for the elements of a list."""
    unreadable: str | None
    """The type if rows cannot hold it, else None."""


def _has_too_many(file: "ParquetFile") -> bool:
    return bool(file.metadata.num_columns > MAX_COLUMNS)


def _schema_error(
    file: "ParquetFile", leaves: Sequence[_Leaf], wanted: Collection[str] | None
) -> str | None:
    if _has_too_many(file):
        found = f"the Parquet file has {file.metadata.num_columns} columns"
        return f"{found}, more than {MAX_COLUMNS}, counting those inside structs; remove some"
    for leaf in leaves:
        if sum(leaf.path == other.path for other in leaves) > 1:
            return f"the column {_shown(leaf.path)!r} is in the Parquet file twice; remove one"
    for leaf in leaves:
        if leaf.unreadable and _is_needed(leaf, wanted):
            what = (
                f"the column {_shown(leaf.path)!r} of the Parquet file has type {leaf.unreadable}"
            )
            return f"{what}; use only text, numbers, lists and structs"
    return None


def _is_needed(leaf: _Leaf, wanted: Collection[str] | None) -> bool:
    """Whether a layout reads the leaf: one of its keys, or a key inside messages and tools."""
    inside = [name for name in leaf.path[1:] if name != _IN_LIST]
    is_wanted = wanted is None or leaf.path[0] in wanted
    return is_wanted and (not inside or any(name in KEYS_INSIDE for name in inside))


def _leaves(fields: list["Field"], inside: tuple[str, ...]) -> list[_Leaf]:
    """Return the leaves in Parquet's order."""
    return [leaf for field in fields for leaf in _of_type(field.type, (*inside, field.name))]


def _of_type(type_: "DataType", path: tuple[str, ...]) -> list[_Leaf]:
    from pyarrow import types

    if types.is_struct(type_):
        return _leaves(list(type_), path)
    if types.is_list(type_) or types.is_large_list(type_):
        return _of_type(type_.value_type, (*path, _IN_LIST))
    if types.is_dictionary(type_):
        return _of_type(type_.value_type, path)
    readable = (
        *(types.is_string, types.is_large_string, types.is_boolean),
        *(types.is_integer, types.is_floating, types.is_null),
    )
    if any(is_type(type_) for is_type in readable):
        return [_Leaf(path, None)]
    # A map has two leaves: number them, so that they are not taken for duplicate columns.
    names = [path] if _width(type_) == 1 else [(*path, str(n)) for n in range(_width(type_))]
    return [_Leaf(name, str(type_)[:40]) for name in names]


def _width(type_: "DataType") -> int:
    """Return the number of Parquet leaves of a type."""
    inner = [type_.field(index).type for index in range(type_.num_fields)]
    return sum(map(_width, inner)) if inner else 1


def _paths(file: "ParquetFile", leaves: Sequence[_Leaf]) -> list[str] | None:
    """Return the paths of the readable leaves for the reader; None for all."""
    if not any(leaf.unreadable for leaf in leaves):
        return None
    return [
        file.schema.column(index).path for index, leaf in enumerate(leaves) if not leaf.unreadable
    ]


def _shown(path: tuple[str, ...]) -> str:
    return column_name(".".join(path).replace("." + _IN_LIST, _IN_LIST))
