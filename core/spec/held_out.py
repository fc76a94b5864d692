"""What a run knows about its held-out rows: figures, the curve, and rows as requests."""

import math
from typing import Any, Literal

from pydantic import Field

from core.spec.base import Spec

PromptForm = Literal["chat", "text", "labels"]
"""How a model is asked: by messages, by a plain text, or with a text to classify."""


class Question(Spec):
    """A row as a request, and the answer that the row has."""

    line: int
    messages: tuple[dict[str, Any], ...] = Field((), description="of a chat, in OpenAI's format")
    tools: tuple[dict[str, Any], ...] = ()
    text: str | None = Field(None, description="without messages: the prompt, or what to classify")
    reference: str | None = Field(None, description="the text of the row's answer")
    tool_calls: tuple[dict[str, Any], ...] = Field(
        (), description="of the row's answer, in OpenAI's format"
    )
    labels: tuple[str, ...] | None = Field(None, description="of a text to classify")
    several_labels: bool = Field(False, description="a text to classify may have several, or none")
    max_tokens: int = Field(256, description="after which an answer is cut")


class Figures(Spec):
    """Means over all held-out rows. `loss` is in nats per target."""

    loss: float
    accuracy: float = Field(description="share of correct targets: tokens, pairs, rows")


def perplexity(loss: float) -> float:
    """Return exp(loss) of a loss per token, at most 10³⁰⁰."""
    return math.exp(min(loss, 690.0))


class CurvePoint(Spec):
    """One evaluation of the run."""

    step: int
    train_loss: float = Field(description="mean over the steps since the evaluation before it")
    held_out_loss: float


class HeldOutFacts(Spec):
    """What a run found out about its held-out rows, and what a worker asks the models then."""

    rows: int = Field(0, description="held-out rows")
    source: Literal["validation_file", "split"] | None = Field(None, description="None: no rows")
    base: Figures | None = Field(None, description="of the model with which the run began")
    base_missing: str | None = Field(None, description="why it has no figures")
    tuned: Figures | None = Field(None, description="of the final weights")
    curve: tuple[CurvePoint, ...] = ()
    form: PromptForm = "chat"
    questions: tuple[Question, ...] = ()
    omitted: int = Field(0, description="chosen rows without a question, or too long to be sent")
    majority: tuple[str, ...] | None = Field(
        None, description="of a classifier: the most frequent labels of a training row"
    )
