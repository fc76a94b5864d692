"""What engines of the version before send is read as they meant it, and so are strange answers."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import TunesmithError, Unavailable
from core.spec.engine_protocol import (
    CORRUPT,
    CRASHED,
    FAILED,
    FULL,
    INVALID,
    KEY_REFUSED,
    NOT_BEGUN,
    NOT_FOUND,
    NOT_SERVED_HERE,
    EngineReport,
    RefusalKind,
    kind_of,
    read_refusal,
)

OLD_REPORT = {
    "url": "http://gpu-1:8001",
    "status": "ready",
    "bases": [{"id": "tiny", "source": "/tiny", "revision": None, "quantisation": None}],
    "precisions": [],
    "max_bases": 16,
    "bundles": ["0" * 64],
    "running": 2,
    "waiting": 0,
    "max_running": 32,
}
"""As an engine sent it before reports told the hardware."""


def refusal(**error: Any) -> bytes:
    return json.dumps({"error": {"message": "No.", "param": None, "code": None} | error}).encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (421, "unsupported_adapter", NOT_SERVED_HERE),
        (421, "base_not_served", NOT_SERVED_HERE),
        (400, "context_length_exceeded", INVALID),
        (401, "invalid_engine_key", KEY_REFUSED),
        (404, "adapter_not_found", NOT_FOUND),
        (429, "queue_full", FULL),
        (503, "engine_stopping", NOT_BEGUN),
        (503, "engine_unavailable", NOT_BEGUN),
        (503, "adapter_corrupt", CORRUPT),
        (503, "engine_failed", FAILED),
        (503, "engine_out_of_memory", FAILED),
        (503, "storage_unavailable", FAILED),
        (500, "internal_error", CRASHED),
    ],
)
def test_refusals_of_the_version_before_keep_their_kind(
    status: int, code: str, kind: RefusalKind
) -> None:
    error = read_refusal(status, refusal(code=code), {"retry-after": "7"})
    assert (kind_of(error), error.code, error.message) == (kind, code, "No.")
    assert not isinstance(error, Unavailable) or error.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("status", "kind"), [(429, FULL), (502, CRASHED), (503, FAILED), (504, CRASHED), (413, CRASHED)]
)
def test_a_proxy_that_answers_in_place_of_the_engine_is_understood(
    status: int, kind: RefusalKind
) -> None:
    error = read_refusal(status, b"<html>", {})
    assert kind_of(error) is kind
    assert error.message == f"The engine failed with status {status}."
    assert not isinstance(error, Unavailable) or error.retry_after_seconds == 5


def test_what_another_engine_may_answer_and_what_would_be_refused_again() -> None:
    assert [kind.status for kind in (NOT_SERVED_HERE, FULL, NOT_BEGUN) if kind.asks_another] == [
        421,
        429,
        503,
    ]
    alone = (INVALID, KEY_REFUSED, NOT_FOUND, CORRUPT, FAILED, CRASHED)
    assert not any(kind.asks_another for kind in alone)
    passing = (FULL, NOT_BEGUN, FAILED, CRASHED)
    assert not any(kind.is_lasting for kind in passing)


def test_an_error_that_no_engine_raises_on_purpose_is_a_crash() -> None:
    class Odd(TunesmithError):
        code = "queue_full"

    assert kind_of(Odd("It has the code of another kind.")) is CRASHED


def test_reports_of_the_version_before_and_of_the_next_are_read() -> None:
    old = EngineReport.model_validate(OLD_REPORT)
    assert (old.hardware, old.precision, old.base_precisions) == ("", None, ())
    assert old.bases[0].id == "tiny"
    assert EngineReport.model_validate(OLD_REPORT | {"watts": 300}) == old
    with pytest.raises(ValidationError):
        EngineReport.model_validate(OLD_REPORT | {"status": "odd"})


def test_what_the_version_before_reported_is_stored_as_it_can_read_it() -> None:
    stored = EngineReport.model_validate(OLD_REPORT).model_dump(mode="json", exclude_defaults=True)
    assert stored.keys() <= OLD_REPORT.keys()
