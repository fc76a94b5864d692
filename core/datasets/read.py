"""Reads examples from a JSON, CSV or Parquet file, recognized by its first bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from core.datasets.columns import base_columns, in_file_columns, renamed, shadowed
from core.datasets.csv_rows import delimiter_of, read_csv
from core.datasets.formats import Example, LabelExample, ParsedRow, read_row, unknown_layout
from core.datasets.json_rows import read_json
from core.datasets.json_values import Row
from core.datasets.layouts import KEYS, LAYOUTS, layout_of
from core.datasets.lines import Line
from core.datasets.parquet_rows import PARQUET_MARK, read_parquet
from core.datasets.row_errors import RowError
from core.errors import TrainingFailed
from core.spec.dataset import DatasetFormat

NAMED_ERRORS = 5
"""The number of invalid lines in the message of `read_examples`."""
_SEARCHED_LINES = 1000
"""The number of lines after the first invalid one in which more are searched."""

_HEAD_BYTES = 1 << 16  # must contain the header row of a CSV file
_NO_MAPPING: Mapping[str, str] = {}


@dataclass(frozen=True)
class ParsedLine:
    """One line of a file: an example or errors. `file_format` is None until it is known."""

    number: int
    file_format: DatasetFormat | None
    example: Example | None
    errors: tuple[RowError, ...] = ()
    unused: tuple[str, ...] = ()
    """The ignored columns, and ignored keys inside others."""
    row: Row | None = None
    """The row as written in the file."""


def parse_lines(path: Path, columns: Mapping[str, str] = _NO_MAPPING) -> Iterator[ParsedLine]:
    """Yield every line in order; the first row of a known format sets the format of the file.

    `columns` maps keys of a layout to columns of the file.
    """
    file_format: DatasetFormat | None = None
    label_key: str | None = None
    for line in _lines(path, columns):
        row = None if line.row is None else renamed(line.row, columns)
        if file_format is None and row is not None and (layout := layout_of(row, columns)):
            file_format = layout.format
        parsed = _parse(line, row, file_format, label_key, columns)
        if isinstance(parsed.example, LabelExample):
            label_key = _label_key(parsed.example)
        yield ParsedLine(
            line.number,
            file_format,
            parsed.example,
            in_file_columns(parsed.errors, columns),
            parsed.unused,
            line.row,
        )


def read_examples(
    path: Path, columns: Mapping[str, str] = _NO_MAPPING
) -> Iterator[tuple[int, Example]]:
    """Yield (line number from 1, example).

    Raises TrainingFailed with code `invalid_training_file` at the first invalid line; the message
    lists the next ones too.
    """
    lines = parse_lines(path, columns)
    for line in lines:
        if line.example is None:
            raise TrainingFailed(_named_errors(path, line, lines), code="invalid_training_file")
        yield line.number, line.example


def _named_errors(path: Path, first: ParsedLine, rest: Iterator[ParsedLine]) -> str:
    invalid = [first, *(line for line in islice(rest, _SEARCHED_LINES) if line.example is None)]
    file = _FILES.get(path.name, path.name)
    shown = [f"Line {first.number} of {file}: {first.errors[0].message}"]
    shown += [f"line {line.number}: {line.errors[0].message}" for line in invalid[1:NAMED_ERRORS]]
    more = len(invalid) - len(shown)
    if more:
        shown.append(f"and {more} more in the next {_SEARCHED_LINES:,} lines")
    return f"{'; '.join(shown)}."


_FILES = {"train.jsonl": "the training file", "validation.jsonl": "the validation file"}
"""What messages call the files of a workspace."""


def _lines(path: Path, columns: Mapping[str, str]) -> Iterator[Line]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    names = base_columns(columns)
    if head.startswith(PARQUET_MARK):
        return read_parquet(path, names.union(KEYS))
    delimiter = delimiter_of(head, names)
    return read_json(path, names) if delimiter is None else read_csv(path, delimiter)


def _parse(
    line: Line,
    row: Row | None,
    file_format: DatasetFormat | None,
    label_key: str | None,
    columns: Mapping[str, str],
) -> ParsedRow:
    if line.row is None or row is None:
        return ParsedRow(None, line.errors, line.unread)
    layout = layout_of(row, columns)
    if layout is None or file_format is None:
        return _rejected(unknown_layout(line.row))
    if layout.format == "text" and file_format == "classification":
        key = label_key or "label"
        return _rejected(RowError(key, f"{key} is missing; add the {key} of the text"))
    if file_format == "unpaired-preference":
        # if only the rating is missing or wrong, the parser of rated rows reports it
        wanted = (file_format, (*layout.required, "label"))
        layout = next((each for each in LAYOUTS if (each.format, each.required) == wanted), layout)
    if layout.format != file_format:
        hint = "a file has one format; move these rows to another file"
        return _rejected(
            RowError(None, f"the row is {layout.format}, but the file is {file_format}; {hint}")
        )
    if columns:  # unmapped columns with the names of other layouts' keys are ignored
        others = set(KEYS).difference(layout.keys)
        hidden = [key for key in others if row.get(key) is not None]
        parsed = read_row({key: row[key] for key in row if key not in others}, layout)
        parsed = replace(parsed, unused=(*parsed.unused, *hidden, *shadowed(line.row, columns)))
    else:
        parsed = read_row(row, layout)
    if line.unread:
        parsed = replace(parsed, unused=(*parsed.unused, *line.unread))
    example = parsed.example
    if isinstance(example, LabelExample) and (key := _label_key(example)) != (label_key or key):
        return _rejected(
            RowError(
                key, f"{key} is used in a file whose other rows have {label_key}; use {label_key}"
            )
        )
    return parsed


def _rejected(error: RowError) -> ParsedRow:
    return ParsedRow(None, (error,), ())


def _label_key(example: LabelExample) -> str:
    return "labels" if example.multi else "label"
