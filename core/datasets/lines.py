"""A JSONL file, one row at a time: bounded memory whatever the file holds.

A line is never read beyond `MAX_LINE_BYTES`. What is wrong with a line comes out as its
faults; what is wrong with the whole file (not text, compressed, empty) as those of line 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.datasets.faults import RowFault, is_what
from core.datasets.json_values import JsonObject
from core.datasets.strict_json import BadJson, decode

MAX_LINE_BYTES = 4 << 20
"""Far above the longest row that trains (131,072 tokens are some 0.6 MB of text); decoding the
worst line of this length takes some 130 MB."""

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
    """One line: its row, or the faults that keep it from being one."""

    number: int
    row: JsonObject | None
    faults: tuple[RowFault, ...] = ()
    unread: tuple[str, ...] = ()
    """Columns that hold nothing that can be read, and that no form has."""


def read_lines(path: Path) -> Iterator[Line]:
    """Yield every line of the file in order; blank lines at its end are passed over."""
    with path.open("rb") as file:
        head = file.read(4)
        if fault := kind_fault(head):
            yield faulty(1, fault)
            return
        file.seek(len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0)

        first_blank = number = 0
        for number, line in _bounded_lines(file):
            if line is not None and not line.strip():
                first_blank = first_blank or number
                continue
            for blank in range(first_blank or number, number):
                yield faulty(blank, "the line is blank; delete it")
            first_blank = 0
            yield parsed_line(number, line)
        if number == 0 or first_blank == 1:
            yield faulty(1, "the file is empty; write one JSON object per line")


def _bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line); the line is None, and passed over, when it is longer than the cap."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_SKIP_BYTES)
        yield number, None


def kind_fault(head: bytes) -> str | None:
    """Return what a file is that begins so, when it is no text in UTF-8."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return f"the file is {what}"
    return None


def parsed_line(number: int, line: bytes | None) -> Line:
    """Return the row in a line, None being one beyond the cap."""
    if line is None:
        return faulty(
            number, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; split or shorten the row"
        )
    if b"\0" in line:
        return faulty(number, nul_fault(line))
    try:
        row = decode(line.decode().rstrip())
    except UnicodeDecodeError as error:
        return faulty(number, decoding_fault(line, error.start))
    except BadJson as error:
        return Line(number, None, (RowFault(error.field, str(error)),))
    if not isinstance(row, dict):
        return faulty(number, f"the row {is_what(row)}; each line must be one JSON object")
    return Line(number, row)


def faulty(number: int, message: str) -> Line:
    """Return a line with one fault that has no field."""
    return Line(number, None, (RowFault(None, message),))


def nul_fault(line: bytes) -> str:
    """Return where the first NUL of a line stands, and the cure."""
    cure = "the file may be binary or UTF-16; save it as UTF-8 text"
    return f"byte {line.index(0) + 1} of the line is NUL; {cure}"


def decoding_fault(line: bytes, position: int) -> str:
    """Return which byte of a line is not UTF-8, what it may be, and the cure."""
    byte = line[position : position + 1]
    fault = f"byte {position + 1} of the line (0x{byte.hex()}) is not UTF-8"
    likely = byte.decode("cp1252", errors="ignore")
    if likely:
        fault += f"; in Latin-1 or Windows-1252 it would be {likely!r}"
    return fault + "; save the file as UTF-8"
