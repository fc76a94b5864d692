"""Parses a row of a known layout into an example, or returns its errors.

`layouts.py` defines the layouts, `examples.py` the kinds of example. A `ChatExample` is ready for a
Hugging Face chat template, as `chat.py` describes.
"""

from dataclasses import dataclass

from core.datasets.column_hints import mapping_json, suggested_columns
from core.datasets.examples import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.json_values import JsonObject, Row
from core.datasets.layouts import KEYS, LAYOUTS, Layout, layout_of
from core.datasets.row_errors import RowError, RowErrors, joined, nearest
from core.datasets.strict_json import BadJson, decode
from core.spec.dataset import DatasetFormat

__all__ = [
    "ChatExample",
    "CompletionExample",
    "Example",
    "LabelExample",
    "ParsedRow",
    "PreferenceExample",
    "RatedExample",
    "TextExample",
    "detect_format",
    "parse_row",
    "read_row",
    "unknown_layout",
]

_LISTS = frozenset(("messages", "conversations", "tools", "functions", "labels"))
"""Keys whose value is always a list."""


@dataclass(frozen=True)
class ParsedRow:
    """A row as an example or its errors, and the ignored keys."""

    example: Example | None
    errors: tuple[RowError, ...]
    unused: tuple[str, ...]


def detect_format(row: Row) -> DatasetFormat | None:
    """Return the format that the keys of a row imply, or None. A null counts as a missing key."""
    layout = layout_of(row)
    return layout.format if layout else None


def parse_row(row: Row, format_: DatasetFormat) -> Example | tuple[RowError, ...]:
    """Return the row as an Example of a format, or its errors."""
    layout = layout_of(row)
    if layout is None or layout.format != format_:
        layout = next(layout for layout in LAYOUTS if layout.format == format_)
    parsed = read_row(row, layout)
    return parsed.errors if parsed.example is None else parsed.example


def read_row(row: Row, layout: Layout) -> ParsedRow:
    """Parse a row of a known layout.

    Parsing stops after `core.datasets.row_errors.MAX_ERRORS_PER_ROW` errors.
    """
    row = _without_nulls(row)
    errors = RowErrors()
    example: Example | None = None
    with errors.bounded():
        errors.unknown_keys(row, layout.keys, where="")
        if not errors.found:
            _require_keys(row, layout, errors)
        example = layout.parse(_with_lists(row, errors), errors)
    return ParsedRow(None if errors.found else example, errors.found, errors.unused)


def unknown_layout(row: Row) -> RowError:
    """Return the error for a row whose keys imply no format."""
    row = _without_nulls(row)
    found = list(row)[:5]
    guess = next(filter(None, (nearest(key, KEYS) for key in found)), None)
    hint = (
        "use 'messages', or 'conversations', or 'prompt' and 'completion', or 'instruction' and "
        "'output', or 'prompt', 'chosen' and 'rejected', or 'text' with or without 'label'"
        f"{f' ({guess})' if guess else ''}; or map your columns to these keys with columns"
    )
    if "role" in row and "content" in row:
        hint = "the row is one message; write one conversation per row, as a list in 'messages'"
    elif mapping := suggested_columns(row):
        hint = f"map your columns, for example with columns {mapping_json(mapping)}"
    return RowError(
        None,
        f"the keys of the row ({', '.join(joined('', key) for key in found) or 'none'}) match no "
        f"known format; {hint}",
    )


def _require_keys(row: Row, layout: Layout, errors: RowErrors) -> None:
    """Add an error for a missing required key if another column looks like it."""
    missing = [key for key in layout.required if key not in row]
    mapping = suggested_columns(row, layout.keys) if missing else None
    if mapping and not mapping.items() <= {(key, key) for key in layout.keys}:
        hint = f"add it or map a column to it, for example with columns {mapping_json(mapping)}"
        errors.add(missing[0], f"is missing; {hint}")
        errors.stop()


def _without_nulls(row: Row) -> JsonObject:
    return {key: value for key, value in row.items() if value is not None}


def _with_lists(row: JsonObject, errors: RowErrors) -> JsonObject:
    """Decode lists written as JSON text, as in the cells of a CSV file."""
    texts = {key: value for key, value in row.items() if key in _LISTS and isinstance(value, str)}
    for key, text in texts.items():
        if not text:
            row = {name: value for name, value in row.items() if name != key}
        elif text.lstrip().startswith("["):
            try:
                row = {**row, key: decode(text)}
            except BadJson as error:
                errors.add(key, f"is not JSON: {error}")
    return row
