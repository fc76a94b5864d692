"""Examples out of a dataset file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.datasets.faults import RowFault
from core.datasets.formats import Example, detect_format, parse_row, unrecognised
from core.datasets.lines import Line, read_lines
from core.errors import TrainingFailed
from core.spec.run import DatasetFormat


@dataclass(frozen=True)
class ParsedLine:
    """One line of a file: an example, or faults; `file_format` is the file's, once it is known."""

    number: int
    file_format: DatasetFormat | None
    example: Example | None
    faults: tuple[RowFault, ...] = ()


def parse_lines(path: Path) -> Iterator[ParsedLine]:
    """Yield every line in order; the first row that can be recognised sets the file's format."""
    file_format: DatasetFormat | None = None
    for line in read_lines(path):
        if file_format is None and line.row is not None:
            file_format = detect_format(line.row)
        parsed = _parse(line, file_format)
        if isinstance(parsed, tuple):
            yield ParsedLine(line.number, file_format, None, parsed)
        else:
            yield ParsedLine(line.number, file_format, parsed)


def read_examples(path: Path) -> Iterator[tuple[int, Example]]:
    """Yield (line number from 1, example) of a file that has passed its check.

    TrainingFailed with code `invalid_training_file` at a faulty line.
    """
    for line in parse_lines(path):
        if line.example is None:
            raise TrainingFailed(
                f"Line {line.number} of {path.name}: {line.faults[0].message}.",
                code="invalid_training_file",
            )
        yield line.number, line.example


def _parse(line: Line, file_format: DatasetFormat | None) -> Example | tuple[RowFault, ...]:
    if line.row is None:
        return line.faults
    own = detect_format(line.row)
    if own is None or file_format is None:
        return (unrecognised(line.row),)
    if own != file_format:
        cure = "a file has one format; put these rows into a file of their own"
        return (RowFault(None, f"the row is {own} but the file is {file_format}; {cure}"),)
    return parse_row(line.row, own)
