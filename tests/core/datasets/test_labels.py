"""Texts with labels, and texts without."""

from typing import Any

import pytest

from core.datasets.formats import LabelExample, TextExample, detect_format, parse_row
from core.datasets.labels import MAX_LABEL_CHARACTERS


def result_of(row: dict[str, Any]) -> Any:
    format_ = detect_format(row)
    assert format_ is not None
    return parse_row(row, format_)


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"text": "Hei"}, TextExample("Hei")),
        ({"text": "Hei", "label": "greeting"}, LabelExample("Hei", ("greeting",), multi=False)),
        ({"text": "Hei", "label": 0}, LabelExample("Hei", ("0",), multi=False)),
        ({"text": "Hei", "label": 2.0}, LabelExample("Hei", ("2",), multi=False)),
        ({"text": "Hei", "labels": ["b", 7]}, LabelExample("Hei", ("b", "7"), multi=True)),
        ({"text": "Hei", "labels": '["b", "a"]'}, LabelExample("Hei", ("b", "a"), multi=True)),
        ({"text": "Hei", "labels": []}, LabelExample("Hei", (), multi=True)),
    ],
)
def test_texts_and_labels(row: dict[str, Any], example: object) -> None:
    assert result_of(row) == example


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"text": ""}, "text", "is an empty string; write some text"),
        ({"text": ["x"]}, "text", "is a list; write a string"),
        ({"label": "x"}, "text", "is missing; write a string"),
        ({"text": "x", "label": 1.5}, "label", "is 1.5; write a string or an integer"),
        ({"text": "x", "label": True}, "label", "is true; write a string or an integer"),
        ({"text": "x", "label": " "}, "label", "is blank; write the name of the label"),
        ({"text": "x", "label": ["a"]}, "label", "is a list; write a string or an integer"),
        ({"text": "x", "label": "a", "labels": ["a"]}, "labels", "cannot be combined with label"),
        ({"text": "x", "labels": "a"}, "labels", "is 'a'; write a list, such as"),
        ({"text": "x", "labels": ["a", None]}, "labels[1]", "is missing; write a string"),
        (
            {"text": "x", "labels": [1, "1"]},
            "labels[1]",
            "is '1', which is in the list already; list each label once",
        ),
        (
            {"text": "x", "label": "l" * (MAX_LABEL_CHARACTERS + 1)},
            "label",
            "has 201 characters; shorten it to 200",
        ),
    ],
)
def test_fault_names_field_and_cure(row: dict[str, Any], field: str, words: str) -> None:
    faults = result_of(row)
    assert isinstance(faults, tuple)
    assert faults[0].field == field
    assert faults[0].message.startswith(field + " ")
    assert words in faults[0].message
