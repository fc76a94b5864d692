"""Reads a CSV file row by row: the header gives the keys, and every cell is text.

RFC 4180 with comma, semicolon or tab. A quoted cell may contain line breaks, so a row is numbered
by its first line. Blank lines are ignored. A cell holds a list, such as `messages` or `labels`, as
JSON.
"""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from core.datasets.formats import detect_format
from core.datasets.lines import (
    MAX_LINE_BYTES,
    UTF8_MARK,
    Line,
    decoding_error,
    invalid_line,
    nul_error,
)
from core.datasets.row_errors import joined

MAX_COLUMNS = 256
_DELIMITERS = ",;\t"
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w .-]{0,63}")
_HINTS = {
    "unexpected end of data": (
        "a quoted cell has no closing quote; close it, and write each quote inside it twice"
    ),
    "expected after": (
        "text follows the closing quote of a cell; write each quote inside a cell twice"
    ),
    "new-line character": "a carriage return is outside quotes; end lines with a line feed",
}


def delimiter_of(head: bytes, columns: Collection[str] = ()) -> str | None:
    """Return the cell separator; None if the file does not start with a header row.

    `columns` are additional names that identify a header.
    """
    first = head.removeprefix(UTF8_MARK).split(b"\n", 1)[0].decode(errors="replace").strip()
    if not first or first[0] in "{[":
        return None
    for delimiter in _DELIMITERS:
        names = _names(first, delimiter)
        if detect_format(dict.fromkeys(names, "")) is not None or any(
            name in columns for name in names
        ):
            return delimiter
        if len(names) > 1 and all(_COLUMN_NAME.fullmatch(name) for name in names):
            return delimiter
    return None


def read_csv(path: Path, delimiter: str) -> Iterator[Line]:
    """Yield every row in order, numbered by its first line; the header is line 1."""
    # The csv module's default limit is lower than ours, which counts the whole row.
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open("rb") as file:
        if file.read(len(UTF8_MARK)) != UTF8_MARK:
            file.seek(0)
        names = _names(file.readline(MAX_LINE_BYTES).decode(errors="replace").strip(), delimiter)
        if error := _header_error(names):
            yield invalid_line(1, error)
            return
        empty = True
        lines = _Lines(file)
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        while not lines.overflown:
            number = lines.start_row()
            try:
                cells = next(records)
            except StopIteration:
                break
            except (_Unreadable, csv.Error) as problem:
                empty = False
                yield invalid_line(number, _explained(problem))
                continue
            if not cells:
                continue
            empty = False
            if len(cells) == len(names):
                yield Line(number, dict(zip(names, cells, strict=True)))
            else:
                hint = "quote cells that contain the separator"
                yield invalid_line(
                    number, f"the row has {len(cells)} cells for {len(names)} columns; {hint}"
                )
        if empty:
            yield invalid_line(1, "the file has a header but no rows; write one row per example")


class _Unreadable(Exception):
    """A line that cannot be decoded; the message says why."""


class _Lines:
    """The decoded lines of a file from line 2 on, with a size limit per row."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 1
        self._row_bytes = 0
        self.overflown = False
        """A row exceeded the size limit, so the start of the next row is unknown."""

    def start_row(self) -> int:
        """Start a row at the next line and return the number of that line."""
        self._row_bytes = 0
        return self._number + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._row_bytes += len(line)
        if self._row_bytes > MAX_LINE_BYTES:
            self.overflown = True
            raise _Unreadable(
                f"the row is longer than {MAX_LINE_BYTES >> 20} MiB; nothing after it was read; "
                "split or shorten it, or close an open quote"
            )
        if b"\0" in line:
            raise _Unreadable(nul_error(line))
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise _Unreadable(decoding_error(line, error.start)) from None


def _names(header: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([header], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _header_error(names: list[str]) -> str | None:
    if len(names) > MAX_COLUMNS:
        return f"the header has {len(names)} columns, more than {MAX_COLUMNS}; remove some"
    for index, name in enumerate(names):
        if not name:
            return f"column {index + 1} of the header has no name; name it or remove it"
        if name in names[:index]:
            return f"the column {joined('', name)!r} is in the header twice; remove one"
    return None


def _explained(problem: Exception) -> str:
    if isinstance(problem, _Unreadable):
        return str(problem)
    for part, explanation in _HINTS.items():
        if part in str(problem):
            return explanation
    return (
        f"the row is not valid CSV: {problem}; quote cells and write each quote inside them twice"
    )
