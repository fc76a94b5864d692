"""Examples out of a file that has passed its check."""

from collections.abc import Iterator
from pathlib import Path

from core.datasets.faults import RowFault
from core.datasets.formats import Example, detect_format, parse_row, unrecognised
from core.datasets.lines import Line, read_lines
from core.errors import TrainingFailed
from core.spec.run import DatasetFormat


def read_examples(path: Path) -> Iterator[tuple[int, Example]]:
    """Yield (line number from 1, example) in order; all rows have the format of the first.

    TrainingFailed with code `invalid_training_file` at the first faulty line.
    """
    format_: DatasetFormat | None = None
    for line in read_lines(path):
        if format_ is None and line.row is not None:
            format_ = detect_format(line.row)
        example = parse_line(line, format_)
        if isinstance(example, tuple):
            fault = example[0]
            raise TrainingFailed(
                f"Line {line.number} of {path.name}: {fault.message}.",
                code="invalid_training_file",
            )
        yield line.number, example


def parse_line(line: Line, format_: DatasetFormat | None) -> Example | tuple[RowFault, ...]:
    """Return the line as an example of the file's format, or its faults."""
    if line.row is None:
        return line.faults
    own = detect_format(line.row)
    if own is None or format_ is None:
        return (unrecognised(line.row),)
    if own != format_:
        cure = "a file has one format; put these rows into a file of their own"
        return (RowFault(None, f"the row is {own} but the file is {format_}; {cure}"),)
    return parse_row(line.row, format_)
