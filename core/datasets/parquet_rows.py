"""A Parquet file, one row at a time; row 1 is the first, and its number is given as the line.

Structs become objects, lists become lists, and a null is left out: in a table every struct of a
column has every key. pyarrow is loaded when the first such file is read.

A few bytes of Parquet can stand for gigabytes. Rows are read in batches that the file itself
says are small, page by page and on one thread; the limits of the child that checks an upload
(`bounded.py`) stop a file that lies, and so a file that has passed needs no more than they allow.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.datasets.faults import joined
from core.datasets.lines import MAX_LINE_BYTES, Line, faulty
from core.datasets.strict_json import MAX_DEPTH

MAX_COLUMNS = 256
_BATCH_BYTES = 1 << 20
_MAX_BATCH_ROWS = 32  # a text that repeats is stored once: here the size says nothing
_READ_BYTES = 1 << 20
_MAX_METADATA_ENTRIES = 100_000  # of one list in the file's description of itself
_MAX_METADATA_BYTES = 16 << 20

PARQUET_MARK = b"PAR1"


def read_parquet(path: Path) -> Iterator[Line]:
    """Yield every row in order, numbered from 1; what ends the reading early is the last fault."""
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
            if fault := _schema_fault(file):
                yield faulty(1, fault)
                return
            for batch in _batches(file):
                for row in _rows(batch):
                    number += 1
                    yield _line(number, row)
    except MemoryError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0][:200]
        yield faulty(number + 1, f"the Parquet file is broken here: {first_line}; write it again")
        return
    if number == 0:
        yield faulty(1, "the Parquet file has no rows; write one row per example")


def _batches(file: Any) -> Iterator[Any]:
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        row_bytes = max(1, group.total_byte_size) / max(1, group.num_rows)
        rows = min(_MAX_BATCH_ROWS, max(1, int(_BATCH_BYTES / row_bytes)))
        yield from file.iter_batches(rows, row_groups=[index], use_threads=False)


def _rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the rows of a batch; None for one with a string that is no UTF-8."""
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


def _line(number: int, row: dict[str, Any] | None) -> Line:
    if row is None:
        return faulty(number, "a string of the row is not UTF-8; write the column as UTF-8 text")
    if _size(row) > MAX_LINE_BYTES:
        cure = "split or shorten the row"
        return faulty(number, f"the row is longer than {MAX_LINE_BYTES >> 20} MiB; {cure}")
    return Line(number, _plain(row))


def _size(value: Any) -> int:
    """Return about as many bytes as the value would take as JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _size(child) for key, child in value.items())
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _plain(value: Any) -> Any:
    """Leave out nulls inside objects; NaN is how some writers say null."""
    if isinstance(value, dict):
        plain = {key: _plain(child) for key, child in value.items()}
        return {key: child for key, child in plain.items() if child is not None}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _schema_fault(file: Any) -> str | None:
    if file.metadata.num_columns > MAX_COLUMNS:
        found = f"the Parquet file has {file.metadata.num_columns} columns"
        return f"{found}, more than {MAX_COLUMNS}, those inside of structs counted; remove some"
    return _fields_fault(list(file.schema_arrow), "")


def _fields_fault(fields: list[Any], inside: str) -> str | None:
    names = [field.name for field in fields]
    for field in fields:
        where = joined(inside, field.name)
        if names.count(field.name) > 1:
            return f"the column {where!r} stands twice in the Parquet file; remove one"
        if fault := _type_fault(field.type, where):
            return fault
    return None


def _type_fault(type_: Any, where: str) -> str | None:
    from pyarrow import types

    if types.is_struct(type_):
        return _fields_fault(list(type_), where)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_dictionary(type_):
        return _type_fault(type_.value_type, where)
    readable = (
        *(types.is_string, types.is_large_string, types.is_boolean),
        *(types.is_integer, types.is_floating, types.is_null),
    )
    if any(is_type(type_) for is_type in readable):
        return None
    cure = "write text, numbers, lists and structs only"
    return f"the column {where!r} of the Parquet file holds {str(type_)[:40]}; {cure}"
