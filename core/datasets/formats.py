"""From a row to an example: which form it has, and what is wrong with it.

The forms stand in `forms.py`, the kinds of example in `examples.py`. A `ChatExample` is ready for
a Hugging Face chat template; `chat.py` says what that means.
"""

from dataclasses import dataclass

from core.datasets.advice import suggested_columns, written
from core.datasets.examples import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.faults import Faults, RowFault, joined, nearest
from core.datasets.forms import FORMS, KEYS, Form, form_of
from core.datasets.json_values import JsonObject, Row
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
    "unrecognised",
]

_LISTS = frozenset(("messages", "conversations", "tools", "functions", "labels"))
"""Keys that never hold plain text."""


@dataclass(frozen=True)
class ParsedRow:
    """A row as an example, or what is wrong with it; and the keys that were passed over."""

    example: Example | None
    faults: tuple[RowFault, ...]
    unused: tuple[str, ...]


def detect_format(row: Row) -> DatasetFormat | None:
    """Return the format that the keys of a row speak for, or None. A null counts as no key."""
    form = form_of(row)
    return form.format if form else None


def parse_row(row: Row, format_: DatasetFormat) -> Example | tuple[RowFault, ...]:
    """Return the row as an Example of a format, or what is wrong with it."""
    form = form_of(row)
    if form is None or form.format != format_:
        form = next(form for form in FORMS if form.format == format_)
    parsed = read_row(row, form)
    return parsed.faults if parsed.example is None else parsed.example


def read_row(row: Row, form: Form) -> ParsedRow:
    """Read a row in a form.

    After `core.datasets.faults.MAX_FAULTS_PER_ROW` faults the rest of the row is not looked at.
    """
    row = _without_nulls(row)
    faults = Faults()
    example: Example | None = None
    with faults.bounded():
        faults.unknown_keys(row, form.keys, where="")
        if not faults.found:
            _require_keys(row, form, faults)
        example = form.parse(_with_lists(row, faults), faults)
    return ParsedRow(None if faults.found else example, faults.found, faults.unused)


def unrecognised(row: Row) -> RowFault:
    """Return the fault of a row whose format cannot be told."""
    row = _without_nulls(row)
    found = list(row)[:5]
    guesses = [f"; {guess}" for key in found if (guess := nearest(key, KEYS))]
    cure = (
        "write 'messages', or 'conversations', or 'prompt' and 'completion', or 'instruction' and "
        "'output', or 'prompt', 'chosen' and 'rejected', or 'text' with or without 'label'"
        f"{''.join(guesses[:1])}, or say with columns which of yours stands for which"
    )
    if "role" in row and "content" in row:
        cure = "the row is one message; put each conversation into one row, as a list in 'messages'"
    elif mapping := suggested_columns(row):
        cure = f"say which of them stands for what, such as columns {written(mapping)}"
    return RowFault(
        None,
        f"the keys of the row ({', '.join(joined('', key) for key in found) or 'none'}) belong to "
        f"no known format; {cure}",
    )


def _require_keys(row: Row, form: Form, faults: Faults) -> None:
    """Note a key that is missing where another column looks like it."""
    missing = [key for key in form.required if key not in row]
    mapping = suggested_columns(row, form.keys) if missing else None
    if mapping and not mapping.items() <= {(key, key) for key in form.keys}:
        cure = f"write it, or say which column it is, such as columns {written(mapping)}"
        faults.add(missing[0], f"is missing; {cure}")
        faults.stop()


def _without_nulls(row: Row) -> JsonObject:
    return {key: value for key, value in row.items() if value is not None}


def _with_lists(row: JsonObject, faults: Faults) -> JsonObject:
    """Decode lists that are written as text: a CSV cell can hold nothing else."""
    texts = {key: value for key, value in row.items() if key in _LISTS and isinstance(value, str)}
    for key, text in texts.items():
        if not text:
            row = {name: value for name, value in row.items() if name != key}
        elif text.lstrip().startswith("["):
            try:
                row = {**row, key: decode(text)}
            except BadJson as error:
                faults.add(key, f"is not JSON: {error}")
    return row
