"""Reads a JSONL file line by line in bounded memory.

At most `MAX_LINE_BYTES` of a line are read. Errors of the whole file (not text, compressed, empty)
are reported for line 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.datasets.json_values import JsonObject
from core.datasets.row_errors import RowError, describe
from core.datasets.strict_json import BadJson, decode

MAX_LINE_BYTES = 4 << 20
"""Far above the longest row that can be trained on (131,072 tokens are about 0.6 MB of text).
Decoding the worst line of this length takes about 130 MB."""

_SKIP_BYTES = 1 << 20

_MAGIC = {
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"{\x00": "UTF-16; save it as UTF-8",
    b"\x00{": "UTF-16; save it as UTF-8",
    b"[\x00": "UTF-16; save it as UTF-8",
    b"\x00[": "UTF-16; save it as UTF-8",
}
UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line: its row, or its errors."""

    number: int
    row: JsonObject | None
    errors: tuple[RowError, ...] = ()
    unread: tuple[str, ...] = ()
    """Columns of types that cannot be read and that no layout uses."""


def read_lines(path: Path, *, skip_blank: bool = False) -> Iterator[Line]:
    """Yield every line of the file in order; blank lines at the end, or all, are ignored."""
    with path.open("rb") as file:
        head = file.read(4)
        if error := file_type_error(head):
            yield invalid_line(1, error)
            return
        file.seek(len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0)

        first_blank = number = 0
        for number, line in _bounded_lines(file):
            if line is not None and not line.strip():
                first_blank = first_blank or number
                continue
            for blank in range(first_blank or number, number) if not skip_blank else ():
                yield invalid_line(blank, "the line is blank; delete it")
            first_blank = 0
            yield parsed_line(number, line)
        if number == 0 or first_blank == 1:
            yield invalid_line(1, "the file is empty; write one JSON object per line")


def _bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line); a line longer than `MAX_LINE_BYTES` is skipped and given as None."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_SKIP_BYTES)
        yield number, None


def file_type_error(head: bytes) -> str | None:
    """Return an error if the first bytes show that the file is not UTF-8 text."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"the file is {what}"
    return None


def parsed_line(number: int, line: bytes | None) -> Line:
    """Parse a line into a row; None is a line beyond `MAX_LINE_BYTES`."""
    if line is None:
        return invalid_line(
            number, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; split or shorten the row"
        )
    if b"\0" in line:
        return invalid_line(number, nul_error(line))
    try:
        row = decode(line.decode().rstrip())
    except UnicodeDecodeError as error:
        return invalid_line(number, decoding_error(line, error.start))
    except BadJson as error:
        return Line(number, None, (RowError(error.field, str(error)),))
    if not isinstance(row, dict):
        return invalid_line(number, f"the row {describe(row)}; each line must be one JSON object")
    return Line(number, row)


def invalid_line(number: int, message: str) -> Line:
    """Return a line with one error and no field."""
    return Line(number, None, (RowError(None, message),))


def nul_error(line: bytes) -> str:
    """Return the position of the first NUL of a line, with a hint."""
    hint = "the file may be binary or UTF-16; save it as UTF-8 text"
    return f"byte {line.index(0) + 1} of the line is NUL; {hint}"


def decoding_error(line: bytes, position: int) -> str:
    """Return which byte of a line is not UTF-8, its likely meaning, and a hint."""
    byte = line[position : position + 1]
    error = f"byte {position + 1} of the line (0x{byte.hex()}) is not UTF-8"
    likely = byte.decode("cp1252", errors="ignore")
    if likely:
        error += f"; in Latin-1 or Windows-1252 it would be {likely!r}"
    return error + "; save the file as UTF-8"
