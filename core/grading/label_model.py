"""The label that a model chooses: 1 if it is a passing one, else 0."""

from collections.abc import Mapping
from typing import Any

from core.grading.answers import ask
from core.grading.judges import Judges
from core.grading.result import Grade, GraderFailed
from core.grading.sample import Sample
from core.spec.grader import LabelModelGrader


async def grade_label(
    grader: LabelModelGrader, item: Mapping[str, Any], sample: Sample, judges: Judges
) -> Grade:
    """Ask the model, which can answer with one of the labels only.

    Raises GraderFailed if it gives no answer.
    """
    judgement = await ask(grader, item, sample, judges, label_schema(grader))
    try:
        label = judgement.result()
        if label not in grader.labels:
            raise GraderFailed(
                "model_grader_parse_error",
                f"The answer of the model is none of the labels: {str(label)[:200]!r}",
            )
    except GraderFailed as failure:
        return judgement.failed(failure)
    passed = label in grader.passing_labels
    return judgement.grade(float(passed), passed)


def label_schema(grader: LabelModelGrader) -> Mapping[str, Any]:
    """Return the schema of an answer: one of the labels."""
    return {
        "type": "object",
        "properties": {"result": {"type": "string", "enum": list(grader.labels)}},
        "required": ["result"],
        "additionalProperties": False,
    }
