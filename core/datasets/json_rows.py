"""Reads a JSON file row by row.

The usual format is one object per line (`lines.py`). Also supported are a list of objects, an
object with such a list under `data` (or `rows`, `train`, …), and objects that span several lines.
The file is split where an object ends and never decoded as a whole, so memory does not grow with
it. A row is numbered by its first line.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from core.datasets.lines import (
    MAX_LINE_BYTES,
    UTF8_MARK,
    Line,
    file_type_error,
    invalid_line,
    parsed_line,
    read_lines,
)
from core.datasets.strict_json import MAX_DEPTH, BadJson, decode

LIST_KEYS = (
    *("data", "rows", "examples", "train", "training", "instances", "items", "records", "samples"),
    *("entries", "dataset"),
)
"""Keys under which a file may hold its rows as one list."""

_HEAD_BYTES = 1 << 16  # the list of rows must begin in these
_CHUNK_BYTES = 1 << 16
_SCALAR = rb'(?:"[^"\\]{0,1000}"|[-\w.+]{1,40})'
_NAME = rb'"[^"\\]{1,64}"\s*:\s*'
_LIST_START = re.compile(
    rb"\s*\{\s*(?:" + _NAME + _SCALAR + rb"\s*,\s*){0,16}"
    rb'"(' + "|".join(LIST_KEYS).encode() + rb')"\s*:\s*\[(?=\s*\{)'
)
_AFTER_LIST = re.compile(rb"\s*(?:,\s*" + _NAME + _SCALAR + rb"\s*){0,16}\}\s*")
_BLANK = re.compile(rb"\s*")
_OUTSIDE = re.compile(rb"[^\s,]")
_SAME_DEPTH = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\\n]++|\\.)*+")*+', re.DOTALL)
"""Bytes that do not change the depth: complete strings, and anything but brackets and quotes."""
_STRING = re.compile(rb'["\\\n]')


def read_json(path: Path, columns: Collection[str] = ()) -> Iterator[Line]:
    """Yield every row in order. `columns` are additional key names of the rows themselves."""
    with path.open("rb") as file:
        start = len(UTF8_MARK) if file.read(len(UTF8_MARK)) == UTF8_MARK else 0
        file.seek(start)
        head = file.read(_HEAD_BYTES)
        if file_type_error(head):
            opening, after = 0, None
        elif head.lstrip().startswith(b"["):
            opening, after = head.index(b"[") + 1, _BLANK
        elif (holder := _LIST_START.match(head)) and _holds_rows(file, start, holder[1], columns):
            opening, after = holder.end(), _AFTER_LIST
        else:
            opening, after = 0, _BLANK if _is_spread(file, start) else None
        if after is not None:
            file.seek(start + opening)
            line = 1 + head[:opening].count(b"\n")
            yield from _rows(file, _ValueSplitter(line, in_list=opening > 0), after)
            return
    yield from read_lines(path)


def _holds_rows(file: BinaryIO, start: int, name: bytes, columns: Collection[str]) -> bool:
    """Whether the list under `name` holds the rows, rather than being part of the first row."""
    file.seek(start)
    first, second = file.readline(MAX_LINE_BYTES + 1), file.readline(_HEAD_BYTES)
    return name.decode() not in columns and not (_is_object(first) and second.strip())


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(decode(line.decode().strip()), dict)
    except (UnicodeDecodeError, BadJson):
        return False


def _is_spread(file: BinaryIO, start: int) -> bool:
    """Whether the first object spans several lines."""
    file.seek(start)
    splitter = _ValueSplitter(1, in_list=False)
    lines = read = 0
    while (line := file.readline(MAX_LINE_BYTES + 1)) and read <= MAX_LINE_BYTES:
        read += len(line)
        lines += bool(line.strip())
        if any(True for _ in splitter.cut(line)) or splitter.has_ended:
            return lines > 1 and not splitter.stray
    return False


def _rows(file: BinaryIO, splitter: "_ValueSplitter", after: re.Pattern[bytes]) -> Iterator[Line]:
    """Yield the rows that `splitter` finds; `after` matches what may follow the list."""
    empty = True
    while not splitter.has_ended and (chunk := file.read(_CHUNK_BYTES)):
        for number, row in splitter.cut(chunk):
            empty = False
            yield parsed_line(number, row)
    if splitter.stray:
        found = splitter.stray.decode(errors="replace")
        hint = "write each row as a JSON object; nothing after it was read"
        yield invalid_line(splitter.line, f"expected a row but found {found!r}; {hint}")
    elif splitter.is_too_deep:
        what = f"lists and objects are nested more than {MAX_DEPTH} deep"
        yield invalid_line(splitter.began, f"{what}; flatten the row; nothing after it was read")
    elif splitter.is_inside:
        hint = "close it, or upload the complete file if it was truncated"
        yield invalid_line(splitter.began, f"the row that begins here is not closed; {hint}")
    elif splitter.in_list and not splitter.has_ended:
        hint = "close it with ']', or upload the complete file if it was truncated"
        yield invalid_line(splitter.line, f"the list of rows is not closed; {hint}")
    elif splitter.in_list and not after.fullmatch(splitter.rest + file.read(_HEAD_BYTES)):
        hint = "put all rows into one list"
        yield invalid_line(splitter.line, f"something follows the list of rows; {hint}")
    elif empty:
        yield invalid_line(splitter.line, "the list has no rows; write one JSON object per example")


def _end_of(pattern: re.Pattern[bytes], chunk: bytes, position: int) -> int:
    found = pattern.match(chunk, position)
    return found.end() if found else position


@dataclass
class _ValueSplitter:
    """Splits a byte stream into JSON values. A value beyond `MAX_LINE_BYTES` becomes None."""

    line: int
    in_list: bool
    has_ended: bool = False
    """The list is closed, or the next value is not a row; nothing more is read."""
    is_too_deep: bool = False
    stray: bytes = b""
    rest: bytes = b""
    """The bytes after the end of the list, up to the end of the chunk."""
    began: int = 1
    """The first line of the current value."""
    _depth: int = 0
    _in_string: bool = False
    _is_escaped: bool = False
    _value: bytearray = field(default_factory=bytearray)
    _is_too_long: bool = False

    @property
    def is_inside(self) -> bool:
        return self._depth > 0

    def cut(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield (first line, value) for every value that ends in the chunk."""
        position = kept = counted = 0
        while position < len(chunk) and not self.has_ended:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
                continue
            if self._depth and not self._in_string:
                position = _end_of(_SAME_DEPTH, chunk, position)
            pattern = _STRING if self._in_string else _OUTSIDE
            if (found := pattern.search(chunk, position)) is None:
                break
            position = found.end()
            if self._depth:
                if self._ends_value(found[0]):
                    self._append(chunk[kept:position])
                    yield self.began, self._pop_value()
                continue
            kept = found.start()
            self.line += chunk.count(b"\n", counted, kept)
            counted = kept
            if not self._starts_value(found[0]):
                self.stray = b"" if self.in_list and found[0] == b"]" else chunk[kept : kept + 20]
                self.rest = chunk[position:]
                return
        self.line += chunk.count(b"\n", counted)
        if self._depth:
            self._append(chunk[kept:])

    def _starts_value(self, mark: bytes) -> bool:
        """Start a value if the byte opens one; any other byte ends the rows."""
        if mark == b"{" or (mark == b"[" and self.in_list):
            self._depth, self.began = 1, self.line
            return True
        self.has_ended = True
        return False

    def _ends_value(self, mark: bytes) -> bool:
        """Update the depth for a byte inside a value; return whether it ends the value."""
        if self._in_string:
            self._is_escaped = mark == b"\\"
            # JSON strings contain no line breaks: a line break means an unclosed string.
            self._in_string = self._is_escaped
        elif mark == b'"':
            self._in_string = True
        else:
            self._depth += 1 if mark in (b"{", b"[") else -1
            self.has_ended = self.is_too_deep = self._depth > MAX_DEPTH
        return self._depth == 0

    def _append(self, piece: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._value) + len(piece) > MAX_LINE_BYTES
        if not self._is_too_long:
            self._value += piece

    def _pop_value(self) -> bytes | None:
        value = None if self._is_too_long else bytes(self._value)
        self._value.clear()
        self._is_too_long = False
        return value
