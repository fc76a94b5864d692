"""Reads the labels of a row as text: 1, 1.0 and "1" are the same label. Also reads ratings.

A rating is true or false, or 1 or 0; in CSV, which has only text, the word or the digit.
"""

from core.datasets.json_values import Row
from core.datasets.row_errors import RowErrors, describe

MAX_LABEL_CHARACTERS = 200

_RATINGS = {"true": True, "false": False, "1": True, "0": False}


def parse_label(row: Row, errors: RowErrors) -> tuple[str, ...]:
    """Return the label under `label`; empty with an error if it is invalid."""
    label = _label(row.get("label"), "label", errors)
    return (label,) if label else ()


def parse_labels(row: Row, errors: RowErrors) -> tuple[str, ...]:
    """Return the labels under `labels` in order; the list may be empty."""
    labels = row.get("labels")
    if not isinstance(labels, list):
        hint = 'write a list, such as ["urgent", "billing"]'
        if "parent_id" in row:  # OpenAssistant's data set
            hint = "the row is one message of a tree; write complete conversations in 'messages'"
        errors.add("labels", f"{describe(labels)}; {hint}")
        return ()
    parsed: dict[str, None] = {}
    for index, value in enumerate(labels):
        label = _label(value, f"labels[{index}]", errors)
        if label in parsed:
            errors.add(
                f"labels[{index}]",
                f"{describe(label)}, which is in the list already; list each label once",
            )
        if label:
            parsed[label] = None
    return tuple(parsed)


def rating_of(value: object) -> bool | None:
    """Return whether an answer is rated good, or None if the value is no rating."""
    if isinstance(value, str):
        return _RATINGS.get(value.lower())
    return bool(value) if isinstance(value, (int, float)) and value in (0, 1) else None


def parse_rating(row: Row, errors: RowErrors) -> bool:
    """Return the rating under `label`; False with an error if it is invalid."""
    label = row.get("label")
    rating = rating_of(label)
    if rating is None:
        hint = "write true for a good completion, false for a bad one"
        errors.add("label", f"{describe(label)}; {hint}")
    return rating is True


def _label(value: object, where: str, errors: RowErrors) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas converts integer columns with missing values to floats
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        errors.add(where, f"{describe(value)}; write a string or an integer")
    elif not value.strip():
        errors.add(where, "is blank; write the name of the label")
    elif len(value) > MAX_LABEL_CHARACTERS:
        errors.add(where, f"has {len(value)} characters; shorten it to {MAX_LABEL_CHARACTERS}")
    else:
        return value
    return None
