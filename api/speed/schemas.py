"""The speed test of a model."""

from typing import Literal

from pydantic import BaseModel

from api.models.schemas import ServingObject
from core.spec.speed import SpeedLevel


class SpeedObject(BaseModel):
    """Ours. Times are those that a worker saw, which asked one engine over HTTP."""

    object: Literal["model.speed"] = "model.speed"
    model: str
    created_at: int
    serving: ServingObject
    """The form that was measured."""
    hardware: str
    """As the engine names it; empty when it does not."""
    prompt_tokens: int
    completion_tokens: int
    """Of each request."""
    levels: list[SpeedLevel]
    is_complete: bool
    """False when time ran out before the last level."""
