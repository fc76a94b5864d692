"""Examples out of a dataset file: JSONL, CSV or Parquet, told apart by what they begin with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.datasets.csv_rows import delimiter_of, read_csv
from core.datasets.faults import RowFault
from core.datasets.formats import Example, LabelExample, detect_format, parse_row, unrecognised
from core.datasets.lines import Line, read_lines
from core.datasets.parquet_rows import PARQUET_MARK, read_parquet
from core.errors import TrainingFailed
from core.spec.run import DatasetFormat

_HEAD_BYTES = 1 << 16  # a header row has to fit


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
    label_key: str | None = None
    for line in _lines(path):
        if file_format is None and line.row is not None:
            file_format = detect_format(line.row)
        parsed = _parse(line, file_format, label_key)
        if isinstance(parsed, tuple):
            yield ParsedLine(line.number, file_format, None, parsed)
            continue
        if isinstance(parsed, LabelExample):
            label_key = _label_key(parsed)
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


def _lines(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(PARQUET_MARK):
        return read_parquet(path)
    delimiter = delimiter_of(head)
    return read_lines(path) if delimiter is None else read_csv(path, delimiter)


def _parse(
    line: Line, file_format: DatasetFormat | None, label_key: str | None
) -> Example | tuple[RowFault, ...]:
    if line.row is None:
        return line.faults
    own = detect_format(line.row)
    if own is None or file_format is None:
        return (unrecognised(line.row),)
    if own == "text" and file_format == "classification":
        key = label_key or "label"
        return (RowFault(key, f"{key} is missing; write the {key} of the text"),)
    if own != file_format:
        cure = "a file has one format; put these rows into a file of their own"
        return (RowFault(None, f"the row is {own} but the file is {file_format}; {cure}"),)
    parsed = parse_row(line.row, own)
    if isinstance(parsed, LabelExample) and (key := _label_key(parsed)) != (label_key or key):
        return (RowFault(key, f"{key} stands in a file of rows with {label_key}; use {label_key}"),)
    return parsed


def _label_key(example: LabelExample) -> str:
    return "labels" if example.multi else "label"
