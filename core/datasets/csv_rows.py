"""A CSV file, one row at a time: the header names the keys, every cell is a text.

RFC 4180, with comma, semicolon or tab: a cell in quotes may hold line breaks, so the number of a
row is that of the line on which it begins. A blank line is passed over. Lists such as `messages`
or `labels` are written as JSON into their cell.
"""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from core.datasets.faults import joined
from core.datasets.formats import detect_format
from core.datasets.lines import (
    MAX_LINE_BYTES,
    UTF8_MARK,
    Line,
    decoding_fault,
    faulty,
    nul_fault,
)

MAX_COLUMNS = 256
_DELIMITERS = ",;\t"
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w .-]{0,63}")
_CURES = {
    "unexpected end of data": "a quoted cell is never closed; close it, and double quotes inside",
    "expected after": "a quoted cell goes on behind its closing quote; double quotes inside it",
    "new-line character": "a carriage return stands outside of quotes; end lines with a line feed",
}


def delimiter_of(head: bytes, columns: Collection[str] = ()) -> str | None:
    """Return what separates the cells; None when a file that begins so has no header row.

    `columns` are names that a header may have.
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
    """Yield every row in order, numbered by the line on which it begins; the header is line 1."""
    # The reader's own bound is lower than ours, which counts the whole row.
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open("rb") as file:
        if file.read(len(UTF8_MARK)) != UTF8_MARK:
            file.seek(0)
        names = _names(file.readline(MAX_LINE_BYTES).decode(errors="replace").strip(), delimiter)
        if fault := _header_fault(names):
            yield faulty(1, fault)
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
                yield faulty(number, _explained(problem))
                continue
            if not cells:
                continue
            empty = False
            if len(cells) == len(names):
                yield Line(number, dict(zip(names, cells, strict=True)))
            else:
                cure = "put cells that hold the separator into quotes"
                yield faulty(
                    number, f"the row has {len(cells)} cells for {len(names)} columns; {cure}"
                )
        if empty:
            yield faulty(1, "the file has a header and no rows; write one row per example")


class _Unreadable(Exception):
    """A line that is no text; the message says why."""


class _Lines:
    """The physical lines of a file from line 2 on, decoded, bounded by the row."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 1
        self._row_bytes = 0
        self.overflown = False
        """A row was longer than the cap. Where the next one begins cannot be told."""

    def start_row(self) -> int:
        """Return the number of the next line, with which a row begins."""
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
                f"the row is longer than {MAX_LINE_BYTES >> 20} MiB and nothing behind it was "
                "read; split or shorten it, or close a quote that was left open"
            )
        if b"\0" in line:
            raise _Unreadable(nul_fault(line))
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise _Unreadable(decoding_fault(line, error.start)) from None


def _names(header: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([header], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _header_fault(names: list[str]) -> str | None:
    if len(names) > MAX_COLUMNS:
        return f"the header names {len(names)} columns, more than {MAX_COLUMNS}; remove some"
    for index, name in enumerate(names):
        if not name:
            return f"column {index + 1} of the header has no name; name it or remove it"
        if name in names[:index]:
            return f"the column {joined('', name)!r} stands twice in the header; remove one"
    return None


def _explained(problem: Exception) -> str:
    if isinstance(problem, _Unreadable):
        return str(problem)
    for part, explanation in _CURES.items():
        if part in str(problem):
            return explanation
    return f"the row is not CSV: {problem}; put cells into quotes and double quotes inside them"
