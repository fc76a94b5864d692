"""Graders: how an answer of a model is scored. OpenAI's bodies, with every name that they have.

Text fields are templates: `{{item.x}}` and `{{sample.output_text}}` (`core/grading/template.py`).
Source: OpenAI's graders guide and API description.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from core.spec.base import Spec
from core.spec.names import Aliased
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


class SamplingParams(Aliased, Spec):
    """How a model grader samples; None: the default of the model."""

    seed: Integer | None = None
    top_p: Number | None = None
    temperature: Number | None = None
    max_completions_tokens: Annotated[Integer, Field(ge=1)] | None = Field(
        None,
        validation_alias=AliasChoices(
            "max_completions_tokens", "max_completion_tokens", "max_tokens"
        ),
        description="OpenAI's guide also writes `max_tokens`, a completion `max_completion_tokens`",
    )
    reasoning_effort: str | None = None


def _usual_operation(value: object) -> object:
    """Return `ne` for `neq`, as OpenAI's guide calls it beside its own description."""
    return "ne" if value == "neq" else value


class StringCheckGrader(Spec):
    """1 if the comparison holds, else 0. `like` and `ilike`: the input contains the reference."""

    type: Literal["string_check"] = "string_check"
    name: str
    input: str
    reference: str
    operation: Annotated[StringOperation, BeforeValidator(_usual_operation)]


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
    sampling_params: SamplingParams = SamplingParams()


class PythonGrader(Spec):
    """`grade(sample, item)` of a Python source, which runs in a sandbox."""

    type: Literal["python"] = "python"
    name: str = "python"
    source: str
    image_tag: str | None = None
    """Accepted and ignored: graders have the standard library and rapidfuzz."""
    pass_threshold: Number | None = None


SingleGrader = Annotated[
    StringCheckGrader | TextSimilarityGrader | ScoreModelGrader | LabelModelGrader | PythonGrader,
    Field(discriminator="type"),
]


def _by_key(value: object) -> object:
    """Return one grader under its name, as OpenAI's API description has it; its guide has keys."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return {str(value.get("name")): value}
    return value


class MultiGrader(Spec):
    """A formula over the scores of other graders, which it names by their keys."""

    type: Literal["multi"] = "multi"
    name: str = "multi"
    graders: Annotated[dict[str, SingleGrader], Field(min_length=1), BeforeValidator(_by_key)]
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
