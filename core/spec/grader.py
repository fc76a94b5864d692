"""Graders: how an answer of a model is scored. OpenAI's bodies, with every name that they have.

Text fields are templates: `{{item.x}}` and `{{sample.output_text}}` (`core/grading/template.py`).
Source: OpenAI's graders guide and API description.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.numbers import Integer, Number

StringOperation = Literal["eq", "ne", "like", "ilike"]
SimilarityMetric = Literal[
    "cosine",
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]

LONGEST_SOURCE_BYTES = 256 * 1024
"""Of a Python grader, as at OpenAI."""


class GraderMessage(Spec):
    """A message of a model grader's prompt, or of an eval run's: OpenAI's `EvalItem`."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | dict[str, Any] | tuple[str | dict[str, Any], ...]
    type: Literal["message"] = "message"


class SamplingParams(Spec):
    """How a model grader samples; None: the default of the model."""

    seed: Integer | None = None
    top_p: Number | None = None
    temperature: Number | None = None
    max_completions_tokens: Annotated[Integer, Field(ge=1)] | None = None
    reasoning_effort: str | None = None


class StringCheckGrader(Spec):
    """1 if the comparison holds, else 0. `like` and `ilike`: the input contains the reference."""

    type: Literal["string_check"] = "string_check"
    name: str
    input: str
    reference: str
    operation: StringOperation


class TextSimilarityGrader(Spec):
    """The similarity of two texts, from 0 to 1."""

    type: Literal["text_similarity"] = "text_similarity"
    name: str
    input: str
    reference: str
    evaluation_metric: SimilarityMetric
    pass_threshold: Number | None = None


class ScoreModelGrader(Spec):
    """A score that a model gives, within `range`."""

    type: Literal["score_model"] = "score_model"
    name: str
    model: str
    input: tuple[GraderMessage, ...] = Field(min_length=1)
    sampling_params: SamplingParams = SamplingParams()
    range: tuple[Number, Number] = (0.0, 1.0)
    pass_threshold: Number | None = None


class LabelModelGrader(Spec):
    """A label that a model chooses. The score is 1 if it is one of `passing_labels`, else 0."""

    type: Literal["label_model"] = "label_model"
    name: str
    model: str
    input: tuple[GraderMessage, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    passing_labels: tuple[str, ...] = Field(min_length=1)


class PythonGrader(Spec):
    """`grade(sample, item)` of a Python source, which runs in a sandbox."""

    type: Literal["python"] = "python"
    name: str
    source: str
    image_tag: str | None = None
    pass_threshold: Number | None = None


SingleGrader = Annotated[
    StringCheckGrader | TextSimilarityGrader | ScoreModelGrader | LabelModelGrader | PythonGrader,
    Field(discriminator="type"),
]


class MultiGrader(Spec):
    """A formula over the scores of other graders, which it names by their keys."""

    type: Literal["multi"] = "multi"
    name: str
    graders: dict[str, SingleGrader] = Field(min_length=1)
    calculate_output: str
    pass_threshold: Number | None = None


Grader = Annotated[
    StringCheckGrader
    | TextSimilarityGrader
    | ScoreModelGrader
    | LabelModelGrader
    | PythonGrader
    | MultiGrader,
    Field(discriminator="type"),
]


class PythonOutcome(Spec):
    """What a Python grader gave: a score, or the error that ended it."""

    score: float | None
    error: str | None = Field(
        None, description="the end of its traceback, or the limit that it exceeded"
    )
