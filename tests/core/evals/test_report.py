"""The CSV of a run: what it has, and that no spreadsheet runs it."""

import csv
import io
import math
from typing import Any

import pytest

from core.evals.report import CsvReport


def body(item: dict[str, Any], text: str = "4", **error: Any) -> dict[str, Any]:
    result = {"name": "exact", "score": 1.0, "passed": True}
    output = [{"role": "assistant", "content": text}]
    sample = {"output": output, "error": error.get("error")}
    return {"datasource_item": item, "results": [result], "sample": sample}


def rows(*lines: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(lines).decode(), newline="")))


def test_line_has_the_item_the_answer_and_each_criterion() -> None:
    report = CsvReport(["question", "tags"], ["exact", "judge"])
    item = {"question": 'What is "2 + 2",\nplease?', "tags": ["a", {"b": 1}]}
    [row] = rows(report.head(), report.line("outputitem_1", 7, "pass", body(item)))
    assert row == {
        "id": "outputitem_1",
        "datasource_item_id": "7",
        "status": "pass",
        "item.question": 'What is "2 + 2",\nplease?',
        "item.tags": '["a", {"b": 1}]',
        "output_text": "4",
        "exact.score": "1.0",
        "exact.passed": "true",
        "judge.score": "",
        "judge.passed": "",
        "error": "",
    }


def test_errors_of_answer_and_graders_are_joined() -> None:
    failed = body({}, error={"code": "a", "message": "no engine"})
    failed["results"][0]["error"] = {"code": "b", "message": "no sandbox"}
    report = CsvReport([], ["exact"])
    [row] = rows(report.head(), report.line("x", 0, "error", failed))
    assert row["error"] == "no engine; no sandbox"


STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "  =", "\u200b@", "\uff1d"]


@pytest.mark.parametrize("start", STARTS)
def test_text_that_a_spreadsheet_would_run_is_quoted(start: str) -> None:
    hostile = start + 'HYPERLINK("http://x","y")'
    report = CsvReport([hostile], [hostile])
    result = {"name": hostile, "score": -1, "passed": False}
    found = body({hostile: hostile}, hostile) | {"results": [result]}
    lines = report.head() + report.line("x", 0, "fail", found)
    cells = [cell for row in csv.reader(io.StringIO(lines.decode(), newline="")) for cell in row]
    assert sum(cell == "'" + hostile for cell in cells) == 2  # the item and the answer
    assert "'" + hostile + ".score" in cells
    assert not any(cell.startswith(start) for cell in cells if cell != "-1")
    assert "-1" in cells  # a number is none of the texts


def test_number_that_no_float_can_hold_is_written() -> None:
    report = CsvReport(["a"], ["exact"])
    [row] = rows(report.head(), report.line("x", 0, "pass", body({"a": 10**400})))
    assert row["item.a"] == "1" + "0" * 400


def test_number_that_is_none_is_a_text(start: str = "'-Infinity") -> None:
    report = CsvReport(["a"], ["exact"])
    line = report.line("x", 0, "pass", body({"a": -math.inf})).decode()
    assert line.split(",")[3] == start


def test_lone_surrogate_of_an_item_can_be_written() -> None:
    report = CsvReport(["a"], ["exact"])
    assert b"?" in report.line("x", 0, "pass", body({"a": "\ud800"}))
