"""Columns with names of their own, mapped to the keys of a form."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from core.datasets.check import check
from core.datasets.columns import renamed, require_known_keys
from core.datasets.formats import CompletionExample, LabelExample
from core.datasets.read import read_examples
from core.errors import InvalidRequest

QA = {"prompt": "question", "completion": "answer"}
ROW = {"question": "Capital of Norway?", "answer": "Oslo.", "level": 3}
EXAMPLE = CompletionExample("Capital of Norway?", "Oslo.")


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_mapped_file_is_read_and_says_with_what(tmp_path: Path) -> None:
    path = written(tmp_path / "x", ROW, ROW)
    report = check(path, QA)
    assert report.usable
    assert report.format == "prompt-completion"
    assert report.columns == QA
    assert report.column_names == ("question", "answer", "level")
    assert report.unused_columns == ("level",)
    assert list(read_examples(path, QA)) == [(1, EXAMPLE), (2, EXAMPLE)]


def test_every_kind_of_file_takes_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("question;answer\nCapital of Norway?;Oslo.\n")
    (tmp_path / "list").write_text(json.dumps([ROW]))
    write_table(pa.Table.from_pylist([ROW]), tmp_path / "parquet")
    for name, line in (("csv", 2), ("list", 1), ("parquet", 1)):
        assert list(read_examples(tmp_path / name, QA)) == [(line, EXAMPLE)]


def test_a_table_of_one_mapped_column_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("review\nGood.\n")
    assert check(tmp_path / "x", {"text": "review"}).usable
    assert not check(tmp_path / "x").usable


def test_the_mapped_keys_say_which_form_is_meant(tmp_path: Path) -> None:
    row = {**ROW, "messages": [], "text": "x", "label": 1, "prompt": "another"}
    report = check(written(tmp_path / "x", row), QA)
    assert report.usable
    assert set(report.unused_columns) == {"messages", "text", "label", "level", "prompt"}
    assert list(read_examples(tmp_path / "x", QA)) == [(1, EXAMPLE)]


def test_keys_that_are_not_mapped_go_by_their_own_names(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"sentence": "Good.", "label": 1})
    assert list(read_examples(path, {"text": "sentence"})) == [
        (1, LabelExample("Good.", ("1",), multi=False))
    ]


def test_a_column_may_be_named_by_a_path(tmp_path: Path) -> None:
    row = {"q": {"en": ["Capital of Norway?"]}, "a.b": "Oslo."}
    columns = {"prompt": "q.en[0]", "completion": "a.b"}
    report = check(written(tmp_path / "x", row), columns)
    assert report.usable
    assert report.unused_columns == ()
    assert list(read_examples(tmp_path / "x", columns)) == [(1, EXAMPLE)]


@pytest.mark.parametrize("row", [{"q": {"en": []}}, {"q": {"en": 3}}, {"q": None}, {"q": [1]}])
def test_a_path_that_leads_nowhere_is_no_value(row: dict[str, Any]) -> None:
    assert renamed(row, {"prompt": "q.en[0]"}) == {"prompt": None}


def test_faults_name_the_column_of_the_file(tmp_path: Path) -> None:
    report = check(
        written(tmp_path / "x", ROW, {**ROW, "answer": None}, {**ROW, "question": 1}), QA
    )
    assert [(fault.line, fault.field, fault.message) for fault in report.faults] == [
        (2, "answer", "answer is missing; write a string"),
        (3, "question", "question is 1; write a string"),
    ]


def test_faults_inside_of_a_column_name_it_too(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"turns": [{"role": "user", "content": 1}]})
    report = check(path, {"messages": "turns"})
    assert report.faults[0].field == "turns[0].content"
    assert report.faults[0].message.startswith("turns[0].content is 1")


def test_a_column_that_no_row_has_is_the_one_fault(tmp_path: Path) -> None:
    report = check(written(tmp_path / "x", *[ROW] * 60), {**QA, "prompt": "questoin"})
    [fault] = report.faults
    assert report.fault_count == 1
    assert fault.field == "columns.prompt"
    assert (
        "'questoin' is not a column of the file; the closest match is 'question'" in fault.message
    )


def test_without_a_near_name_the_columns_are_listed(tmp_path: Path) -> None:
    [fault] = check(written(tmp_path / "x", ROW), {**QA, "prompt": "zzz"}).faults
    assert fault.message.endswith("its columns are question, answer, level")


@pytest.mark.parametrize(
    ("columns", "param", "words"),
    [
        (
            {"promt": "x"},
            "columns",
            "columns has the unknown key 'promt'; the closest match is 'prompt'",
        ),
        ({"zzz": "x"}, "columns", "use one of input, preferred_output"),
        ({"prompt": ""}, "columns.prompt", "write a column name"),
        ({"prompt": "a\0"}, "columns.prompt", "write a column name"),
        ({"prompt": "a" * 201}, "columns.prompt", "of 1 to 200 characters"),
    ],
)
def test_a_mapping_that_can_name_nothing_is_refused(
    columns: dict[str, str], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as raised:
        require_known_keys(columns)
    assert raised.value.param == param


def test_keys_that_no_form_has_together_are_refused() -> None:
    mapping = {"instruction": "question", "context": "context", "output": "answers.text[0]"}
    with pytest.raises(InvalidRequest, match="context cannot be combined with") as caught:
        require_known_keys(mapping)
    assert caught.value.param == "columns.context"
    require_known_keys({"instruction": "question", "input": "context", "output": "answers.text[0]"})
