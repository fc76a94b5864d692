"""A JSON file, one row at a time, whichever way its rows stand in it.

One object per line (`lines.py`) is the usual way. A list of objects, an object whose list `data`
(or `rows`, `train`, …) holds them, and objects that are spread over several lines are read as well:
the file is cut where an object ends, without being decoded as a whole, so memory does not grow
with it. The number of a row is that of the line on which its object begins.
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
    faulty,
    kind_fault,
    parsed_line,
    read_lines,
)
from core.datasets.strict_json import MAX_DEPTH, BadJson, decode

HOLDERS = (
    *("data", "rows", "examples", "train", "training", "instances", "items", "records", "samples"),
    *("entries", "dataset"),
)
"""Names under which a file may hold its rows as one list."""

_HEAD_BYTES = 1 << 16  # in which the list of the rows has to begin
_CHUNK_BYTES = 1 << 16
_SCALAR = rb'(?:"[^"\\]{0,1000}"|[-\w.+]{1,40})'
_NAME = rb'"[^"\\]{1,64}"\s*:\s*'
_HOLDER = re.compile(
    rb"\s*\{\s*(?:" + _NAME + _SCALAR + rb"\s*,\s*){0,16}"
    rb'"(' + "|".join(HOLDERS).encode() + rb')"\s*:\s*\[(?=\s*\{)'
)
_AFTER_HOLDER = re.compile(rb"\s*(?:,\s*" + _NAME + _SCALAR + rb"\s*){0,16}\}\s*")
_BLANK = re.compile(rb"\s*")
_OUTSIDE = re.compile(rb"[^\s,]")
_PASSED_OVER = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\\n]++|\\.)*+")*+', re.DOTALL)
"""Whatever changes no depth: whole strings, and what stands between them and the brackets."""
_STRING = re.compile(rb'["\\\n]')


def read_json(path: Path, columns: Collection[str] = ()) -> Iterator[Line]:
    """Yield every row in order. `columns` are names that the rows themselves may have."""
    with path.open("rb") as file:
        start = len(UTF8_MARK) if file.read(len(UTF8_MARK)) == UTF8_MARK else 0
        file.seek(start)
        head = file.read(_HEAD_BYTES)
        if kind_fault(head):
            opening, after = 0, None
        elif head.lstrip().startswith(b"["):
            opening, after = head.index(b"[") + 1, _BLANK
        elif (holder := _HOLDER.match(head)) and _holds_rows(file, start, holder[1], columns):
            opening, after = holder.end(), _AFTER_HOLDER
        else:
            opening, after = 0, _BLANK if _is_spread(file, start) else None
        if after is not None:
            file.seek(start + opening)
            line = 1 + head[:opening].count(b"\n")
            yield from _rows(file, _Cutter(line, in_list=opening > 0), after)
            return
    yield from read_lines(path)


def _holds_rows(file: BinaryIO, start: int, name: bytes, columns: Collection[str]) -> bool:
    """Say whether the list under `name` holds the rows, and is not a part of the first row."""
    file.seek(start)
    first, second = file.readline(MAX_LINE_BYTES + 1), file.readline(_HEAD_BYTES)
    return name.decode() not in columns and not (_is_object(first) and second.strip())


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(decode(line.decode().strip()), dict)
    except (UnicodeDecodeError, BadJson):
        return False


def _is_spread(file: BinaryIO, start: int) -> bool:
    """Say whether the first object ends on a later line than that on which it begins."""
    file.seek(start)
    cutter = _Cutter(1, in_list=False)
    lines = read = 0
    while (line := file.readline(MAX_LINE_BYTES + 1)) and read <= MAX_LINE_BYTES:
        read += len(line)
        lines += bool(line.strip())
        if any(True for _ in cutter.cut(line)) or cutter.has_ended:
            return lines > 1 and not cutter.stray
    return False


def _rows(file: BinaryIO, cutter: "_Cutter", after: re.Pattern[bytes]) -> Iterator[Line]:
    """Yield what `cutter` cuts out; `after` is what may follow the list."""
    empty = True
    while not cutter.has_ended and (chunk := file.read(_CHUNK_BYTES)):
        for number, row in cutter.cut(chunk):
            empty = False
            yield parsed_line(number, row)
    if cutter.stray:
        found = cutter.stray.decode(errors="replace")
        cure = "write each row as a JSON object; nothing behind this was read"
        yield faulty(cutter.line, f"{found!r} stands where a row should begin; {cure}")
    elif cutter.is_too_deep:
        what = f"lists and objects are nested more than {MAX_DEPTH} deep"
        yield faulty(cutter.began, f"{what}; flatten the row; nothing behind it was read")
    elif cutter.is_inside:
        cure = "close it, or fetch the file again if it was cut off"
        yield faulty(cutter.began, f"the row that begins here does not end; {cure}")
    elif cutter.in_list and not cutter.has_ended:
        cure = "close it with ']', or fetch the file again if it was cut off"
        yield faulty(cutter.line, f"the list of rows does not end; {cure}")
    elif cutter.in_list and not after.fullmatch(cutter.rest + file.read(_HEAD_BYTES)):
        cure = "put all rows into one list"
        yield faulty(cutter.line, f"something follows the list of rows; {cure}")
    elif empty:
        yield faulty(cutter.line, "the list holds no rows; write one JSON object per example")


def _end_of(pattern: re.Pattern[bytes], chunk: bytes, place: int) -> int:
    found = pattern.match(chunk, place)
    return found.end() if found else place


@dataclass
class _Cutter:
    """Cuts values out of bytes as they arrive. A value beyond the cap comes out as None."""

    line: int
    in_list: bool
    has_ended: bool = False
    """The list is closed, or what stands here is no row: looking on would only cost time."""
    is_too_deep: bool = False
    stray: bytes = b""
    rest: bytes = b""
    """What follows the list in the chunk in which it ends."""
    began: int = 1
    """The line on which the value in hand begins."""
    _depth: int = 0
    _in_string: bool = False
    _is_escaped: bool = False
    _value: bytearray = field(default_factory=bytearray)
    _is_too_long: bool = False

    @property
    def is_inside(self) -> bool:
        return self._depth > 0

    def cut(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield (line, value) for every value that ends in the chunk."""
        place = kept = counted = 0
        while place < len(chunk) and not self.has_ended:
            if self._is_escaped:
                self._is_escaped = False
                place += 1
                continue
            if self._depth and not self._in_string:
                place = _end_of(_PASSED_OVER, chunk, place)
            pattern = _STRING if self._in_string else _OUTSIDE
            if (found := pattern.search(chunk, place)) is None:
                break
            place = found.end()
            if self._depth:
                if self._passes(found[0]):
                    self._keep(chunk[kept:place])
                    yield self.began, self._taken()
                continue
            kept = found.start()
            self.line += chunk.count(b"\n", counted, kept)
            counted = kept
            if not self._begins(found[0]):
                self.stray = b"" if self.in_list and found[0] == b"]" else chunk[kept : kept + 20]
                self.rest = chunk[place:]
                return
        self.line += chunk.count(b"\n", counted)
        if self._depth:
            self._keep(chunk[kept:])

    def _begins(self, mark: bytes) -> bool:
        """Say whether a value begins with the mark; if not, the rows have come to their end."""
        if mark == b"{" or (mark == b"[" and self.in_list):
            self._depth, self.began = 1, self.line
            return True
        self.has_ended = True
        return False

    def _passes(self, mark: bytes) -> bool:
        """Take in a mark inside of a value, and say whether the value ends with it."""
        if self._in_string:
            self._is_escaped = mark == b"\\"
            # A string holds no line break: one that meets it was never closed.
            self._in_string = self._is_escaped
        elif mark == b'"':
            self._in_string = True
        else:
            self._depth += 1 if mark in (b"{", b"[") else -1
            self.has_ended = self.is_too_deep = self._depth > MAX_DEPTH
        return self._depth == 0

    def _keep(self, piece: bytes) -> None:
        self._is_too_long = self._is_too_long or len(self._value) + len(piece) > MAX_LINE_BYTES
        if not self._is_too_long:
            self._value += piece

    def _taken(self) -> bytes | None:
        value = None if self._is_too_long else bytes(self._value)
        self._value.clear()
        self._is_too_long = False
        return value
