"""The score of a model: it reasons in steps, then gives a number."""

import math
from collections.abc import Mapping
from typing import Any

from core.grading.answers import ask
from core.grading.judges import Judges
from core.grading.result import Grade, GraderFailed, reaches
from core.grading.sample import Sample
from core.spec.grader import ScoreModelGrader

MOST_STEPS = 16
LONGEST_STEP = 1000
"""Characters of a text of a step. Without limits, a small model may never come to its result."""

_TEXT = {"type": "string", "maxLength": LONGEST_STEP}
_STEP = {
    "type": "object",
    "properties": {"description": _TEXT, "conclusion": _TEXT},
    "required": ["description", "conclusion"],
    "additionalProperties": False,
}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": _STEP, "maxItems": MOST_STEPS},
        "result": {"type": "number"},
    },
    "required": ["steps", "result"],
    "additionalProperties": False,
}
"""OpenAI's, with the steps first, so that the model reasons before it judges."""


async def grade_score(
    grader: ScoreModelGrader, item: Mapping[str, Any], sample: Sample, judges: Judges
) -> Grade:
    """Ask the model. A number outside the range becomes the nearest in it, as at OpenAI.

    Raises GraderFailed if the model gives no answer.
    """
    judgement = await ask(grader, item, sample, judges, SCHEMA)
    low, high = grader.range
    try:
        score = min(max(_number(judgement.result()), low), high)
    except GraderFailed as failure:
        return judgement.failed(failure)
    threshold = low / 2 + high / 2 if grader.pass_threshold is None else grader.pass_threshold
    return judgement.grade(score, reaches(score, threshold))


def _number(result: Any) -> float:
    is_number = isinstance(result, int | float) and not isinstance(result, bool)
    try:
        number = float(result) if is_number else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf if result > 0 else -math.inf
    if math.isnan(number):
        raise GraderFailed(
            "model_grader_parse_error",
            f"The result of the model is not a number: {str(result)[:200]!r}",
        )
    return number
