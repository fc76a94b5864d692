"""The check of the input file of a batch, alone and in its child."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.bounded import check_requests_in_child
from core.datasets.requests import check_requests, request_lines
from core.spec import batch
from core.spec.batch import BatchReport

URLS = ("/v1/chat/completions", "/v1/completions")


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": []}
    right = {"custom_id": str(number), "method": "POST", "url": URLS[0], "body": body}
    return right | changes


def check(folder: Path, *lines: object) -> BatchReport:
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return check_requests(path, URLS)


def test_report_has_endpoints_and_models_with_their_first_lines(tmp_path: Path) -> None:
    other = line(3, url=URLS[1], body={"model": "other"})
    report = check(tmp_path, line(1), line(2), other, line(4))
    assert (report.rows, report.fault_count, report.usable) == (4, 0, True)
    assert report.urls == {URLS[0]: 1, URLS[1]: 3}
    assert report.models == ("tiny", "other")


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        (line(1), "custom_id", "custom_id '1' is also in line 1; make it unique"),
        (line(2, custom_id=""), "custom_id", "custom_id must be a text that is not empty"),
        (line(2, custom_id=7), "custom_id", "custom_id must be a text that is not empty"),
        (line(2, method="GET"), "method", 'method must be "POST"'),
        (line(2, url="/v1/images"), "url", f"url must be one of {', '.join(URLS)}"),
        (line(2, body="{}"), "body", "body must be an object, the body of the request"),
        (
            line(2, modle="x"),
            "modle",
            "unknown key 'modle'; a request has custom_id, method, url, body",
        ),
    ],
)
def test_error_names_line_and_field(
    tmp_path: Path, wrong: object, field: str, message: str
) -> None:
    report = check(tmp_path, line(1), wrong)
    [fault] = report.faults
    assert (fault.line, fault.field, fault.message) == (2, field, message)
    assert not report.usable


def test_missing_keys_are_all_reported(tmp_path: Path) -> None:
    assert [fault.field for fault in check(tmp_path, {}).faults] == [
        "custom_id",
        "method",
        "url",
        "body",
    ]


def test_blank_lines_are_skipped_and_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("\n" + json.dumps(line(1)) + "\n\n \n" + json.dumps(line(2)) + "\n\n")
    assert check_requests(path, URLS).usable
    assert [each.number for each in request_lines(path)] == [2, 5]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_file_without_requests_is_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    report = check_requests(path, URLS)
    assert report.rows == 0 and "the file is empty" in report.faults[0].message


def test_number_of_requests_and_of_models_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [line(n, body={"model": str(n)}) for n in range(batch.MAX_MODELS + 2)]
    report = check(tmp_path, *models)
    assert len(report.models) == batch.MAX_MODELS
    assert [fault.line for fault in report.faults] == [batch.MAX_MODELS + 1, batch.MAX_MODELS + 2]
    monkeypatch.setattr("core.datasets.requests.MAX_REQUESTS", 2)
    report = check(tmp_path, *map(line, range(5)))
    assert report.faults[0].message == "the file has more than 2 requests; split it"
    assert report.faults[0].line == 3 and not report.usable


def test_child_returns_the_same_report(tmp_path: Path) -> None:
    report = check(tmp_path, line(1), line(1), "text")
    path = tmp_path / "requests.jsonl"
    limits = {"memory_bytes": 256 << 20, "timeout_seconds": 100.0}
    assert check_requests_in_child(path, URLS, **limits) == report
    assert report.fault_count == 2
