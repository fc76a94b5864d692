"""What a finished run is judged by: metrics, fixed prompts, and what its model must reach."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.spec.base import Spec
from core.spec.numbers import Number

LOSS_METRICS = ("loss", "perplexity")
"""The metrics of which less is better."""
FIGURES = (*LOSS_METRICS, "token_accuracy")
"""What the training process measures over all held-out rows."""
ANSWER_METRICS = (
    "exact_match",
    "rouge_l",
    "tool_call_match",
    "tool_name_match",
    "accuracy",
    "macro_f1",
)
"""What is measured on the answers to held-out rows, without graders."""
METRICS = (*FIGURES, *ANSWER_METRICS)

MOST_EVALUATION_BYTES = 512 * 1024
"""Of all graders, prompts and requirements; each trial of a sweep stores them."""
MOST_SAMPLES = 500
MOST_GRADERS = 8
MOST_PROMPTS = 8
MOST_REQUIREMENTS = 8
LONGEST_PROMPT = 32_768
"""Characters of a fixed prompt's text."""

PromptText = Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)]


class PromptMessage(Spec):
    """A message of a fixed prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    content: PromptText


FixedPrompt = PromptText | Annotated[tuple[PromptMessage, ...], Field(min_length=1, max_length=32)]


class Requirement(Spec):
    """What the final model must reach to be published. Every limit that is given applies.

    Of `loss` and `perplexity`, less is better; `better_than_base_by` is always an improvement.
    """

    metric: str = Field(
        min_length=1,
        max_length=255,
        description=f"a grader's name, or one of {', '.join(METRICS)}",
    )
    at_least: Number | None = None
    at_most: Number | None = None
    better_than_base_by: Number | None = None

    @model_validator(mode="after")
    def _require_a_limit(self) -> "Requirement":
        if self.at_least is None and self.at_most is None and self.better_than_base_by is None:
            raise ValueError("a requirement needs at_least, at_most or better_than_base_by")
        return self


def _as_list(value: Any) -> Any:
    """Accept a single requirement without a list."""
    return (value,) if isinstance(value, dict) else value


Requirements = Annotated[tuple[Requirement, ...], BeforeValidator(_as_list)]
