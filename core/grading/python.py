"""The score of `grade(sample, item)` of a Python source."""

import math
from collections.abc import Mapping
from typing import Any

from core.errors import TunesmithError, Unavailable
from core.grading.judges import Judges
from core.grading.result import ErrorFlag, Grade, GraderFailed, reaches
from core.grading.sample import Sample
from core.spec.grader import PythonGrader

DEFAULT_THRESHOLD = 1.0


async def grade_python(
    grader: PythonGrader, item: Mapping[str, Any], sample: Sample, judges: Judges
) -> Grade:
    """Run the source. Raises GraderFailed for an exception, and for a result that is no number."""
    try:
        outcome = await judges.run_python(grader.source, sample.namespace(), dict(item))
    except Unavailable:
        raise
    except TunesmithError as error:
        flag: ErrorFlag = "python_grader_server_error"
        raise GraderFailed(flag, error.message, kind=error.code) from None
    if outcome.error is not None:
        raise GraderFailed("python_grader_runtime_error", outcome.error)
    if outcome.score is None or not math.isfinite(outcome.score):
        raise GraderFailed(
            "python_grader_runtime_error",
            f"grade() returned {outcome.score}; it must return a finite number.",
        )
    score = float(outcome.score)
    threshold = grader.pass_threshold
    return Grade(score, reaches(score, DEFAULT_THRESHOLD if threshold is None else threshold))
