"""The result of an item: its status, what counts, and what is kept of errors."""

from typing import Any

import pytest

from core.errors import TunesmithError
from core.evals.results import Criterion, Sampled, errored_item, graded_item, usage_of
from core.grading.result import Grade
from core.grading.sample import sample_of_completion, sample_of_text
from core.spec.evals import result_names
from core.spec.grader import StringCheckGrader

GRADER = StringCheckGrader(name="exact", input="a", reference="a", operation="eq")
PASS, FAIL = Grade(1.0, True), Grade(0.0, False)
ERROR = Grade(0.0, False, {"model_grader_server_error": True, "details": "it is gone"})
COMPLETION: dict[str, Any] = {
    "model": "tiny",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


def criteria(number: int) -> list[Criterion]:
    names = result_names((GRADER,) * number)
    return [Criterion(GRADER, name) for name in names]


def test_names_of_criteria_are_unique_and_otherwise_unchanged() -> None:
    twin = GRADER.model_copy(update={"name": "exact (2)"})
    assert result_names((GRADER, twin, GRADER, GRADER)) == [
        "exact",
        "exact (2)",
        "exact (3)",
        "exact (4)",
    ]


@pytest.mark.parametrize(
    ("grades", "status", "passed"),
    [
        ([PASS, PASS], "pass", [True, True]),
        ([PASS, FAIL], "fail", [True, False]),
        ([FAIL, ERROR], "error", [False, None]),
        ([PASS, ERROR], "error", [True, None]),
    ],
)
def test_status_follows_from_all_grades(
    grades: list[Grade], status: str, passed: list[bool | None]
) -> None:
    result = graded_item(3, {}, Sampled(sample_of_text("4")), criteria(2), grades, [])
    assert (result.number, result.status, list(result.passed)) == (3, status, passed)


def test_error_of_a_grader_is_kept_in_its_result() -> None:
    result = graded_item(0, {}, Sampled(sample_of_text("4")), criteria(2), [PASS, ERROR], [])
    first, second = result.body["results"]
    assert "error" not in first and first["score"] == 1.0
    assert second["error"] == {"code": "model_grader_server_error", "message": "it is gone"}
    assert second["passed"] is False


def test_answer_of_a_model_grader_is_kept_with_its_prompt() -> None:
    asked = {"messages": [{"role": "user", "content": "Is it 4?"}], "completion": COMPLETION}
    grade = Grade(1.0, True, completions=(asked,))
    result = graded_item(0, {}, Sampled(sample_of_text("4")), criteria(1), [grade], [])
    sample = result.body["results"][0]["sample"]
    assert sample["input"] == [{"role": "user", "content": "Is it 4?"}]
    assert sample["output"] == [{"role": "assistant", "content": "4"}]
    assert sample["usage"]["total_tokens"] == 4


def test_sample_shows_request_and_answer() -> None:
    sampled = Sampled(
        sample_of_completion(COMPLETION),
        [{"role": "user", "content": "2 + 2?"}],
        {"model": "alias", "temperature": 0.5, "seed": 7, "max_completion_tokens": 9},
        COMPLETION,
    )
    sample = graded_item(0, {"a": 1}, sampled, criteria(1), [PASS], []).body["sample"]
    assert sample == {
        "input": [{"role": "user", "content": "2 + 2?"}],
        "output": [{"role": "assistant", "content": "4"}],
        "finish_reason": "stop",
        "model": "tiny",
        "usage": {
            "total_tokens": 4,
            "completion_tokens": 1,
            "prompt_tokens": 3,
            "cached_tokens": 0,
        },
        "error": None,
        "temperature": 0.5,
        "max_completion_tokens": 9,
        "top_p": None,
        "seed": 7,
    }


def test_item_without_an_answer_keeps_the_error() -> None:
    error = TunesmithError("x" * 5000, code="gone")
    result = errored_item(1, {"a": 1}, [], None, error, criteria(2))
    assert (result.status, list(result.passed), result.body["results"]) == ("error", [None] * 2, [])
    assert result.body["sample"]["error"] == {"code": "gone", "message": "x" * 2000}
    assert result.body["datasource_item"] == {"a": 1}


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, "many", {"prompt_tokens": "3"}]
)
def test_usage_that_an_endpoint_leaves_out_counts_as_nothing(usage: object) -> None:
    counted = usage_of({"model": "m", "choices": [], "usage": usage})
    assert (counted["invocation_count"], counted["total_tokens"]) == (1, 0)
