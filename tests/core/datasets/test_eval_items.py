"""The check of the items of evals, alone and in its child."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets import eval_items
from core.datasets.bounded import check_items_in_child, schema_fault_in_child
from core.datasets.eval_items import check_items, item_rows, schema_fault
from core.spec.evals import EvalFileReport

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "integer"}},
    "required": ["question"],
}
GOOD = {"item": {"question": "2 + 2?", "answer": 4}}
LIMITS = {"memory_bytes": 512 << 20, "timeout_seconds": 60.0}


def write(folder: Path, *rows: object) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_report_counts_rows_and_names_the_fields_of_items(tmp_path: Path) -> None:
    other = {"item": {"hint": None}, "sample": {"output_text": "4"}}
    path = write(tmp_path, GOOD, other)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    report = check_items(path)
    assert (report.rows, report.usable) == (2, True)
    assert report.fields == ("question", "answer", "hint")
    assert list(item_rows(path)) == [GOOD, other]


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"question": "a"}, "item", 'item is missing; write each row as {"item": {…}}'),
        ({"item": "a"}, "item", "item must be an object"),
        ({"item": {}, "expected": 1}, "expected", "unknown key 'expected'"),
        ({"item": {}, "sample": "4"}, "sample", "sample must be an object"),
        ({"item": {}, "sample": {}}, "sample", "sample must have output_text, or the choices"),
        ({"item": {}, "sample": {"choices": [{}]}}, "sample", "sample must have output_text"),
        (
            {"item": {}, "sample": {"output_text": 4}},
            "sample.output_text",
            "sample.output_text must be a text",
        ),
    ],
)
def test_wrong_row_is_named_with_its_line(
    tmp_path: Path, row: dict[str, Any], field: str, message: str
) -> None:
    report = check_items(write(tmp_path, GOOD, row))
    [fault] = report.faults
    assert (fault.line, fault.field) == (2, field)
    assert message in fault.message


def test_items_are_validated_with_the_schema(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, {"item": {"answer": "four"}}, {"item": {"question": 1}})
    report = check_items(path, SCHEMA)
    assert {(fault.line, fault.field) for fault in report.faults} == {
        (2, "item"),
        (2, "item.answer"),
        (3, "item.question"),
    }
    assert any("'question' is a required property" in fault.message for fault in report.faults)


def test_answer_may_be_required(tmp_path: Path) -> None:
    choices = [{"message": {"role": "assistant", "content": None}}]
    with_answer = {"item": {}, "sample": {"choices": choices}}
    report = check_items(write(tmp_path, with_answer, GOOD), needs_sample=True)
    [fault] = report.faults
    assert fault.line == 2 and "sample is missing" in fault.message


def test_reference_to_an_address_is_an_error_and_no_request(tmp_path: Path) -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert schema_fault(schema) is None
    [fault] = check_items(write(tmp_path, GOOD), schema).faults
    assert "refers to 'http://127.0.0.1:9/schema.json', which it lacks" in fault.message


def test_schema_that_refers_to_itself_ends(tmp_path: Path) -> None:
    report = check_items(write(tmp_path, GOOD), {"$ref": "#"})
    assert "refers to itself" in report.faults[0].message


@pytest.mark.parametrize("schema", [{"type": "text"}, {"properties": []}, {"required": "question"}])
def test_invalid_schema_is_told(schema: dict[str, Any]) -> None:
    assert schema_fault(schema) is not None
    assert schema_fault(SCHEMA) is None


def test_schema_is_checked_in_the_child(tmp_path: Path) -> None:
    wrong = {"properties": {"é": {"type": "text"}}}
    assert schema_fault_in_child(wrong, **LIMITS) == schema_fault(wrong)
    assert schema_fault_in_child(SCHEMA, **LIMITS) is None
    slow = {"allOf": [{}] * 20_000}
    fault = schema_fault_in_child(slow, **{**LIMITS, "timeout_seconds": 0.1})
    assert fault is not None and "takes more than 0.1 seconds" in fault


def test_child_gives_the_same_report(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, {"item": {"answer": "é"}})
    schema = {**SCHEMA, "description": "é"}
    alone = check_items(path, schema, needs_sample=True)
    assert check_items_in_child(path, schema, needs_sample=True, **LIMITS) == alone


def test_pattern_without_end_is_stopped(tmp_path: Path) -> None:
    schema = {"properties": {"a": {"pattern": "^(a|a)*$"}}}
    path = write(tmp_path, {"item": {"a": "a" * 64 + "b"}})
    limits = {**LIMITS, "timeout_seconds": 0.5}
    report = check_items_in_child(path, schema, **limits)
    assert isinstance(report, EvalFileReport) and not report.usable


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": "^(a|a)*$"}}},
        {
            "$defs": {
                "x0": {},
                **{f"x{n}": {"allOf": [{"$ref": f"#/$defs/x{n - 1}"}] * 9} for n in range(1, 9)},
            },
            "$ref": "#/$defs/x8",
        },
    ],
    ids=["pattern", "references"],
)
def test_item_that_takes_for_ever_is_told_soon_and_ends_the_validation(
    tmp_path: Path, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_items, "ITEM_SECONDS", 0.2)
    slow = {"item": {"a": "a" * 60 + "!"}}
    report = check_items(write(tmp_path, {"item": {}}, slow, slow), schema)
    first = 1 if "$ref" in schema else 2
    assert (report.rows, report.fault_count, report.faults[0].line) == (3, 1, first)
    assert "validation takes more than 0.2 seconds" in report.faults[0].message
