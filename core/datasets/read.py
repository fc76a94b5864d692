"""Examples out of a dataset file: JSON, CSV or Parquet, told apart by what they begin with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from core.datasets.columns import base_columns, renamed, shadowed, under_columns
from core.datasets.csv_rows import delimiter_of, read_csv
from core.datasets.faults import RowFault
from core.datasets.formats import Example, LabelExample, ParsedRow, read_row, unrecognised
from core.datasets.forms import FORMS, KEYS, form_of
from core.datasets.json_rows import read_json
from core.datasets.json_values import Row
from core.datasets.lines import Line
from core.datasets.parquet_rows import PARQUET_MARK, read_parquet
from core.errors import TrainingFailed
from core.spec.dataset import DatasetFormat

NAMED_FAULTS = 5
"""How many faulty lines an error names, and among how many lines after the first they are."""
_LOOKED_AT = 1000

_HEAD_BYTES = 1 << 16  # a header row has to fit
_AS_THEY_ARE: Mapping[str, str] = {}


@dataclass(frozen=True)
class ParsedLine:
    """One line of a file: an example, or faults; `file_format` is the file's, once it is known."""

    number: int
    file_format: DatasetFormat | None
    example: Example | None
    faults: tuple[RowFault, ...] = ()
    unused: tuple[str, ...] = ()
    """What of the line is passed over: columns, and keys inside of them."""
    row: Row | None = None
    """As it stands in the file."""


def parse_lines(path: Path, columns: Mapping[str, str] = _AS_THEY_ARE) -> Iterator[ParsedLine]:
    """Yield every line in order; the first row that can be recognised sets the file's format.

    `columns` says which column stands for which key of a form.
    """
    file_format: DatasetFormat | None = None
    label_key: str | None = None
    for line in _lines(path, columns):
        row = None if line.row is None else renamed(line.row, columns)
        if file_format is None and row is not None and (form := form_of(row, columns)):
            file_format = form.format
        parsed = _parse(line, row, file_format, label_key, columns)
        if isinstance(parsed.example, LabelExample):
            label_key = _label_key(parsed.example)
        yield ParsedLine(
            line.number,
            file_format,
            parsed.example,
            under_columns(parsed.faults, columns),
            parsed.unused,
            line.row,
        )


def read_examples(
    path: Path, columns: Mapping[str, str] = _AS_THEY_ARE
) -> Iterator[tuple[int, Example]]:
    """Yield (line number from 1, example) of a file that has passed its check.

    TrainingFailed with code `invalid_training_file` at a faulty line; it names the next ones too.
    """
    lines = parse_lines(path, columns)
    for line in lines:
        if line.example is None:
            raise TrainingFailed(_named_faults(path, line, lines), code="invalid_training_file")
        yield line.number, line.example


def _named_faults(path: Path, first: ParsedLine, rest: Iterator[ParsedLine]) -> str:
    faulty = [first, *(line for line in islice(rest, _LOOKED_AT) if line.example is None)]
    file = _FILES.get(path.name, path.name)
    shown = [f"Line {first.number} of {file}: {first.faults[0].message}"]
    shown += [f"line {line.number}: {line.faults[0].message}" for line in faulty[1:NAMED_FAULTS]]
    more = len(faulty) - len(shown)
    if more:
        shown.append(f"and {more} more of the next {_LOOKED_AT:,} lines")
    return f"{'; '.join(shown)}."


_FILES = {"train.jsonl": "the training file", "validation.jsonl": "the validation file"}
"""What users call the files of a workspace."""


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
        return ParsedRow(None, line.faults, line.unread)
    form = form_of(row, columns)
    if form is None or file_format is None:
        return _refused(unrecognised(line.row))
    if form.format == "text" and file_format == "classification":
        key = label_key or "label"
        return _refused(RowFault(key, f"{key} is missing; write the {key} of the text"))
    if form.format == "prompt-completion" and file_format == "unpaired-preference":
        # the label is missing or no rating; the parser of the file's form names it
        form = next(each for each in FORMS if each.format == file_format)
    if form.format != file_format:
        cure = "a file has one format; put these rows into a file of their own"
        return _refused(
            RowFault(None, f"the row is {form.format} but the file is {file_format}; {cure}")
        )
    if columns:  # what belongs to other forms is not meant
        others = set(KEYS).difference(form.keys)
        hidden = [key for key in others if row.get(key) is not None]
        parsed = read_row({key: row[key] for key in row if key not in others}, form)
        parsed = replace(parsed, unused=(*parsed.unused, *hidden, *shadowed(line.row, columns)))
    else:
        parsed = read_row(row, form)
    if line.unread:
        parsed = replace(parsed, unused=(*parsed.unused, *line.unread))
    example = parsed.example
    if isinstance(example, LabelExample) and (key := _label_key(example)) != (label_key or key):
        return _refused(
            RowFault(key, f"{key} stands in a file of rows with {label_key}; use {label_key}")
        )
    return parsed


def _refused(fault: RowFault) -> ParsedRow:
    return ParsedRow(None, (fault,), ())


def _label_key(example: LabelExample) -> str:
    return "labels" if example.multi else "label"
