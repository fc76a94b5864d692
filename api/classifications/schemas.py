"""Mistral's classification request and response."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from core.spec.classification import MAX_TEXTS
from core.spec.ids import ModelId

Text = Annotated[str, Field(min_length=1)]


class ClassificationBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[ModelId, Field(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    metadata: dict[str, Any] | None = None
    """Accepted and ignored."""


class TargetScores(BaseModel):
    """The probability of every label; the sum is 1 unless the model is multi-label."""

    scores: dict[str, float]


class Classifications(BaseModel):
    """A result per text, by target. Tunesmith's models have one target, `label`."""

    id: str
    model: str
    results: list[dict[str, TargetScores]]
