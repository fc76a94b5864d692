"""Comparisons: several models answer the rows of one file, and the answers are scored."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.batch import BatchModel
from core.spec.grader import Grader
from core.spec.held_out import Question
from core.spec.verdict import Answer, Metric

FEWEST_MODELS = 2
MOST_MODELS = 8
MOST_ITEMS = 500


class ComparisonRequest(Spec):
    """The input of the task. Models are what their names meant when it was created."""

    models: tuple[BatchModel, ...]
    blob_key: str = Field(description="of the file of rows")
    rows: int = Field(description="of the file")
    columns: dict[str, str] = Field(default_factory=dict)
    graders: tuple[Grader, ...] = ()
    grader_models: dict[str, BatchModel] = Field(default_factory=dict)
    samples: int = Field(description="rows that are drawn")
    seed: int
    max_tokens: int


class ComparedAnswer(Spec):
    """The answer of one model, with its scores by metric."""

    answer: Answer
    scores: dict[str, float | None] = Field(default_factory=dict)
    problems: dict[str, str] = Field(
        default_factory=dict, description="by metric, why it could not be measured"
    )


class ComparedItem(Spec):
    """A row with an answer for each model, in the order of the request."""

    question: Question
    answers: tuple[ComparedAnswer, ...]


class ComparisonProgress(Spec):
    """The answers so far. They are kept here, and a killed worker does not ask them again."""

    items: tuple[ComparedItem, ...] = ()
    total: int = Field(description="rows to be answered")
    omitted: int = Field(
        0, description="drawn rows without an answer to compare with, or that are too long"
    )


class ModelScores(Spec):
    """The means of one model, over the rows that it answered."""

    model: str
    scores: dict[str, float | None]
    rows: int


class Difference(Spec):
    """Two models over the rows that both answered. In the metrics, `base` is `than`."""

    model: str
    than: str
    metrics: tuple[Metric, ...]


class ComparisonResult(Spec):
    """The scores of all models, and the differences of all pairs."""

    models: tuple[ModelScores, ...]
    differences: tuple[Difference, ...]
