"""The verdict on a tuned model: what it does better or worse than the model before training.

The worker computes it at the end of a run, and stores it with the final model.
"""

from typing import Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.evaluation import FixedPrompt, Requirement

VerdictStatus = Literal["better", "no_worse", "worse", "unjudged"]
"""`no_worse`: no difference could be shown. `unjudged`: there was nothing to compare."""


class Answer(Spec):
    """What a model answered."""

    text: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    labels: tuple[str, ...] | None = Field(None, description="that a classifier chose")
    cut: bool = Field(False, description="the answer reached its limit of tokens")
    error: str | None = Field(None, description="why there is no answer")


class Metric(Spec):
    """Means over the rows that both models answered. `interval` is that of the difference, 95 %."""

    name: str
    base: float | None = None
    tuned: float | None = None
    difference: float | None = Field(None, description="tuned minus base")
    interval: tuple[float, float] | None = Field(None, description="null for fewer than 6 rows")
    rows: int = 0
    missing: str | None = Field(None, description="why it could not be measured on some rows")


class LossFigures(Spec):
    """Means over all held-out rows, measured in training."""

    loss: float = Field(description="nats per target")
    perplexity: float | None = Field(None, description="exp(loss), if the targets are tokens")
    accuracy: float = Field(description="share of correct targets: tokens, pairs, rows")


class HeldOut(Spec):
    """The held-out rows and their losses."""

    rows: int
    source: Literal["validation_file", "split"] | None
    base: LossFigures | None = None
    tuned: LossFigures | None = None


class Overfitting(Spec):
    """What the curves of the run say."""

    status: Literal["none", "overfitted", "diverged", "unknown"]
    reason: str
    best_step: int | None = Field(None, description="with the lowest held-out loss")
    last_step: int | None = None
    rise: float | None = Field(None, description="of the held-out loss since then, as a share")


class Confusion(Spec):
    """The labels of the rows against those that the tuned model chose."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] = Field(
        description="a list for each label of the rows, with the number of each chosen label"
    )


class LabelFigures(Spec):
    """One label of a classifier."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class Scores(Spec):
    """A metric on one row; null if it could not be measured."""

    base: float | None = None
    tuned: float | None = None


class JudgedSample(Spec):
    """A held-out row with both answers."""

    line: int
    messages: tuple[dict[str, Any], ...] = ()
    text: str | None = None
    reference: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    labels: tuple[str, ...] | None = None
    base: Answer
    tuned: Answer
    scores: dict[str, Scores] = Field(default_factory=dict)


class PromptAnswer(Spec):
    """The answer of one model to a fixed prompt."""

    model: str
    step: int | None = Field(None, description="of a checkpoint")
    answer: Answer


class PromptAnswers(Spec):
    """A fixed prompt: the answers of the base, of the kept checkpoints by step, of the model."""

    prompt: FixedPrompt
    answers: tuple[PromptAnswer, ...] = ()


class RequirementOutcome(Spec):
    """Whether a requirement is met; null: it could not be measured, which withholds the model."""

    requirement: Requirement
    met: bool | None
    message: str


class Verdict(Spec):
    """The comparison of a tuned model with the model before training."""

    status: VerdictStatus
    sentence: str
    compared_with: str = Field(
        description="the base, the tuned model that the job continued, or "
        "for a new classifier the most frequent label"
    )
    held_out: HeldOut
    metrics: tuple[Metric, ...] = ()
    confusion: Confusion | None = None
    by_label: tuple[LabelFigures, ...] = ()
    overfitting: Overfitting
    samples: tuple[JudgedSample, ...] = ()
    prompts: tuple[PromptAnswers, ...] = ()
    requirements: tuple[RequirementOutcome, ...] = ()
    missing: tuple[str, ...] = Field((), description="what could not be measured, and why")
    seconds: float = Field(0.0, description="that the answers and their scores took")

    @property
    def unmet(self) -> str | None:
        """Why the model is withheld: the requirements that it has not met; None if it is not."""
        unmet = [each.message for each in self.requirements if not each.met]
        return " ".join(unmet) or None
