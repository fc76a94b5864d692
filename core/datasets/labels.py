"""The labels of a row, always as text: 1, 1.0 and "1" are the same label; and ratings.

A rating is true or false; in CSV, which has only text, the word.
"""

from core.datasets.faults import Faults, is_what
from core.datasets.json_values import Row

MAX_LABEL_CHARACTERS = 200

_RATINGS = {"true": True, "false": False}


def parse_label(row: Row, faults: Faults) -> tuple[str, ...]:
    """Return the one label under `label`, and note what is wrong with it."""
    label = _label(row.get("label"), "label", faults)
    return (label,) if label else ()


def parse_labels(row: Row, faults: Faults) -> tuple[str, ...]:
    """Return the labels under `labels`, perhaps none, in their order."""
    labels = row.get("labels")
    if not isinstance(labels, list):
        cure = 'write a list, such as ["urgent", "billing"]'
        if "parent_id" in row:  # OpenAssistant's data set
            cure = "the row is one message of a tree; put whole conversations into 'messages'"
        faults.add("labels", f"{is_what(labels)}; {cure}")
        return ()
    parsed: dict[str, None] = {}
    for index, value in enumerate(labels):
        label = _label(value, f"labels[{index}]", faults)
        if label in parsed:
            faults.add(f"labels[{index}]", f"{is_what(label)} once more; name each label once")
        if label:
            parsed[label] = None
    return tuple(parsed)


def rating_of(value: object) -> bool | None:
    """Return whether an answer is rated good, or None for a value that is no rating."""
    if isinstance(value, str):
        return _RATINGS.get(value.lower())
    return value if isinstance(value, bool) else None


def parse_rating(row: Row, faults: Faults) -> bool:
    """Return the rating under `label`, and note what is wrong with it."""
    label = row.get("label")
    rating = rating_of(label)
    if rating is None:
        cure = "write true for a good completion, false for a bad one"
        faults.add("label", f"{is_what(label)}; {cure}")
    return rating is True


def _label(value: object, where: str, faults: Faults) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns the integers of a column with a gap into floats
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str):
        faults.add(where, f"{is_what(value)}; write a string or an integer")
    elif not value.strip():
        faults.add(where, "is blank; write the name of the label")
    elif len(value) > MAX_LABEL_CHARACTERS:
        cure = f"shorten it to {MAX_LABEL_CHARACTERS}"
        faults.add(where, f"has {len(value)} characters; {cure}")
    else:
        return value
    return None
