"""The speed test of a model."""

from typing import Literal

from pydantic import BaseModel

from api.models.schemas import ServingObject
from core.spec.speed import SpeedLevel


class SpeedObject(BaseModel):
    """Ours. Times are measured by a worker that sends requests to one engine over HTTP."""

    object: Literal["model.speed"] = "model.speed"
    model: str
    created_at: int
    serving: ServingObject
    """The measured serving form."""
    hardware: str
    """As reported by the engine; may be empty."""
    prompt_tokens: int
    completion_tokens: int
    """Of each request."""
    levels: list[SpeedLevel]
    is_complete: bool
    """False if time ran out before the last level."""
