"""Which answers are kept: passing ones, the best first, none twice."""

from typing import Any

import pytest

from core.distillation.candidates import Answered, Candidate, Score
from core.distillation.report import CsvCandidates, jsonl_lines
from core.distillation.selection import graded, with_best
from core.spec.distillation import FilterSpec


def scored(*scores: float, passed: bool = True, error: str | None = None) -> list[Score]:
    return [
        Score(name=f"g{at}", score=each, passed=passed, error=error)
        for at, each in enumerate(scores)
    ]


def candidate(number: int, text: str, **more: Any) -> Candidate:
    message = {"role": "assistant", "content": text}
    return Candidate(number=number, status="answered", message=message, **more)


@pytest.mark.parametrize(
    ("scores", "threshold", "code"),
    [
        ([], None, None),
        ([], 0.5, None),
        (scored(1, 0.5), None, None),
        (scored(1, 0.5), 0.75, None),
        (scored(1, 0.4), 0.75, "below_threshold"),
        (scored(0.1 + 0.2), 0.3, None),
        (scored(1, 0, passed=False), None, "grader:g0"),
        (scored(0, error="down"), None, "grader_error"),
    ],
)
def test_an_answer_passes_all_graders_and_the_threshold(
    scores: list[Score], threshold: float | None, code: str | None
) -> None:
    found = graded(candidate(0, "a"), scores, FilterSpec(pass_threshold=threshold))
    assert (found.reason and found.reason.code) == code
    assert found.status == ("answered" if code is None else "dropped")
    assert len(found.scores) == len(scores)


def test_the_best_are_kept_and_equal_answers_once() -> None:
    candidates = (
        candidate(0, "good", score=0.8),
        candidate(1, "best", score=0.9),
        candidate(2, "best", score=0.9),
        candidate(3, "bad", score=0.1),
        Candidate(number=4, status="failed"),
        candidate(5, "good", score=0.8),
    )
    prompt = Answered(item={}, messages=(), candidates=candidates)
    found = with_best(prompt, FilterSpec(keep=2)).candidates
    assert [each.status for each in found] == [
        *("kept", "kept", "dropped", "dropped", "failed", "dropped")
    ]
    reasons = [each.reason and each.reason.code for each in found]
    assert reasons == [None, None, "duplicate", "not_best", None, "not_best"]
    (only,) = [each for each in with_best(prompt, FilterSpec()).candidates if each.status == "kept"]
    assert only.number == 1


def test_without_graders_the_first_answers_are_kept() -> None:
    prompt = Answered(
        item={}, messages=(), candidates=(candidate(0, "a"), candidate(1, "b"), candidate(2, "c"))
    )
    found = with_best(prompt, FilterSpec(keep=2)).candidates
    assert [each.status for each in found] == ["kept", "kept", "dropped"]


def test_reports_have_a_line_for_each_answer_and_for_a_prompt_without() -> None:
    kept = candidate(0, "=1+1", score=1.0, scores=tuple(scored(1.0)))
    prompt = Answered(
        item={"a": 1}, messages=({"role": "user", "content": "?"},), candidates=(kept,)
    )
    unasked = Answered(item={}, messages=())
    csv = CsvCandidates(["g0"])
    lines = [*csv.lines(0, prompt.model_dump()), *csv.lines(1, unasked.model_dump())]
    assert csv.head().startswith(b"prompt,candidate,status,reason,message,score,g0.score,g0.passed")
    assert lines[0].startswith(b"0,0,answered,,,1.0,1.0,true,") and b"'=1+1" in lines[0]
    assert lines[1].startswith(b"1,0,failed")
    (line,) = jsonl_lines(0, prompt.model_dump())
    assert b'"item": {"a": 1}' in line and b'"content": "=1+1"' in line
    assert len(list(jsonl_lines(1, unasked.model_dump()))) == 1
