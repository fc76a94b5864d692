"""The string check: 1 if a comparison of two texts holds, else 0."""

from collections.abc import Mapping
from typing import Any, assert_never

from core.grading.result import Grade
from core.grading.sample import Sample
from core.grading.template import render
from core.spec.grader import StringCheckGrader


def grade_string(grader: StringCheckGrader, item: Mapping[str, Any], sample: Sample) -> Grade:
    """Compare the rendered texts. Raises GraderFailed for a variable without a value."""
    holds = _holds(
        grader, render(grader.input, item, sample), render(grader.reference, item, sample)
    )
    return Grade(float(holds), holds)


def _holds(grader: StringCheckGrader, text: str, reference: str) -> bool:
    match grader.operation:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case "ilike":
            return reference.casefold() in text.casefold()
        case _:
            assert_never(grader.operation)
