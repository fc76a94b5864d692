"""Grades one answer: the score, whether it passes, and what went wrong."""

from collections.abc import Mapping
from typing import Any, assert_never

from core.grading.judges import Judges
from core.grading.label_model import grade_label
from core.grading.multi import grade_multi
from core.grading.python import grade_python
from core.grading.result import Grade, GraderFailed, failed
from core.grading.sample import Sample
from core.grading.score_model import grade_score
from core.grading.string_check import grade_string
from core.grading.text_similarity import grade_similarity
from core.spec.grader import (
    Grader,
    LabelModelGrader,
    MultiGrader,
    PythonGrader,
    ScoreModelGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)

__all__ = ["Grade", "Judges", "grade"]


async def grade(grader: Grader, item: Mapping[str, Any], sample: Sample, judges: Judges) -> Grade:
    """Score one answer. An error of the grader is in the result; one of the service is raised.

    `Unavailable` is raised, so that the caller can ask again later.
    """
    try:
        match grader:
            case StringCheckGrader():
                return grade_string(grader, item, sample)
            case TextSimilarityGrader():
                return await grade_similarity(grader, item, sample, judges)
            case ScoreModelGrader():
                return await grade_score(grader, item, sample, judges)
            case LabelModelGrader():
                return await grade_label(grader, item, sample, judges)
            case PythonGrader():
                return await grade_python(grader, item, sample, judges)
            case MultiGrader():
                return await grade_multi(grader, item, sample, judges, grade)
            case _:
                assert_never(grader)
    except GraderFailed as failure:
        return failed(failure)
