"""The models that graders need, by the names that they have."""

from core.grading.texts import single_graders
from core.spec.grader import Grader, LabelModelGrader, ScoreModelGrader, TextSimilarityGrader

EMBEDDER = "(embedder)"
"""The name of the base that embeds texts for `cosine`, for which OpenAI's graders have no field.
No model has a name with parentheses."""


def models_named_by(grader: Grader) -> set[str]:
    """Return the names of the models that a grader asks; EMBEDDER if it embeds texts."""
    names: set[str] = set()
    for _, each in single_graders(grader, ""):
        if isinstance(each, ScoreModelGrader | LabelModelGrader):
            names.add(each.model)
        elif isinstance(each, TextSimilarityGrader) and each.evaluation_metric == "cosine":
            names.add(EMBEDDER)
    return names
