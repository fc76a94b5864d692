"""What the report says of a file's good rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets import summary
from core.datasets.check import check
from core.spec.dataset import DatasetReport, DuplicateRow
from core.spec.objective import MAX_LABELS

USER = {"role": "user", "content": "Hei"}
ANSWER = {"role": "assistant", "content": "Hello"}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"a": 1}'}}
    ],
}
TOOL = {"type": "function", "function": {"name": "w"}}


def report_of(tmp_path: Path, *rows: dict[str, Any]) -> DatasetReport:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check(path)


def test_labels_are_listed_once_and_sorted(tmp_path: Path) -> None:
    report = report_of(
        tmp_path, *({"text": "x", "label": label} for label in ["b", 10, "a", "b", 9, "10"])
    )
    assert report.labels == ("10", "9", "a", "b")
    assert not report.multi_label


def test_several_labels_in_a_row_make_a_multi_label_file(tmp_path: Path) -> None:
    rows = [{"text": "x", "labels": labels} for labels in (["b", "a"], [], ["c"])]
    report = report_of(tmp_path, *rows)
    assert (report.labels, report.multi_label, report.rows) == (("a", "b", "c"), True, 3)


def test_more_labels_than_can_be_trained_are_a_fault_of_their_rows(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": n} for n in (*range(MAX_LABELS), "new", 0)]
    report = report_of(tmp_path, *rows)
    assert len(report.labels) == MAX_LABELS
    assert report.rows == MAX_LABELS + 1
    [fault] = report.faults
    assert (fault.line, fault.field) == (MAX_LABELS + 1, "label")
    assert "more than 1000 labels" in fault.message


@pytest.mark.parametrize("first", ["label", "labels"])
def test_one_label_and_several_do_not_mix(tmp_path: Path, first: str) -> None:
    one, several = {"text": "x", "label": "a"}, {"text": "x", "labels": ["a"]}
    rows = [one, several, one] if first == "label" else [several, one, several]
    report = report_of(tmp_path, *rows)
    [fault] = report.faults
    assert (report.rows, fault.line, fault.field) == (
        2,
        2,
        "labels" if first == "label" else "label",
    )


@pytest.mark.parametrize("key", ["label", "labels"])
def test_a_missing_label_is_named(tmp_path: Path, key: str) -> None:
    value: object = "a" if key == "label" else ["a"]
    report = report_of(tmp_path, {"text": "x", key: value}, {"text": "y"})
    [fault] = report.faults
    assert (fault.line, fault.field) == (2, key)
    assert f"{key} is missing; add" in fault.message


def test_rows_that_say_the_same_are_counted_however_they_are_written(tmp_path: Path) -> None:
    chat = {"messages": [USER, ANSWER]}
    report = report_of(
        tmp_path,
        chat,
        {"messages": [USER, {**ANSWER, "content": "Hi"}]},
        {"messages": [USER, {"content": "Hello", "role": "assistant", "name": None}]},
        {"conversations": [{"from": "human", "value": "Hei"}, {"from": "gpt", "value": "Hello"}]},
        {**chat, "tools": [TOOL]},
    )
    assert report.duplicate_rows == 2
    assert report.duplicates == (
        DuplicateRow(line=3, first_line=1),
        DuplicateRow(line=4, first_line=1),
    )


def test_the_first_duplicates_are_listed_and_all_counted(tmp_path: Path) -> None:
    report = report_of(tmp_path, *[{"text": "x"}] * 100)
    assert report.duplicate_rows == 99
    assert [pair.line for pair in report.duplicates] == list(range(2, 22))


def test_memory_of_earlier_rows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MAX_REMEMBERED_ROWS", 2)
    report = report_of(tmp_path, *({"text": text} for text in "abcacb"))
    assert [(pair.line, pair.first_line) for pair in report.duplicates] == [(4, 1), (6, 2)]


@pytest.mark.parametrize(
    ("row", "has_tools"),
    [
        ({"messages": [USER, ANSWER]}, False),
        ({"messages": [USER, ANSWER], "tools": [TOOL]}, True),
        ({"messages": [USER, CALL]}, True),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [CALL]}, True),
        ({"prompt": [USER], "chosen": "a", "rejected": "b"}, False),
        ({"prompt": "x", "completion": "y"}, False),
    ],
)
def test_tools_are_noticed(tmp_path: Path, row: dict[str, Any], has_tools: bool) -> None:
    assert report_of(tmp_path, row).has_tools is has_tools


@pytest.mark.parametrize(
    ("row", "characters"),
    [
        ({"messages": [USER, ANSWER]}, 8),
        ({"messages": [USER, CALL]}, 3 + len('{"name": "w", "arguments": {"a": 1}}')),
        ({"prompt": "abc", "completion": "de"}, 5),
        ({"prompt": "abc", "chosen": "de", "rejected": "fgh"}, 6),
        ({"text": "abcd"}, 4),
        ({"text": "abcd", "label": "x"}, 4),
    ],
)
def test_the_longest_row_is_named(tmp_path: Path, row: dict[str, Any], characters: int) -> None:
    report = report_of(tmp_path, row, row)
    assert (report.longest_line, report.longest_characters) == (1, characters)


def test_reports_of_older_files_can_be_read() -> None:
    old = {"format": "chat", "rows": 3, "faults": [], "fault_count": 0}
    report = DatasetReport.model_validate(old)
    assert report.usable
    assert (report.labels, report.duplicate_rows, report.longest_line) == ((), 0, None)
