"""What an engine tells the API about itself while it lives, and how it refuses a request."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.precision import PrecisionChoice

BEAT_SECONDS = 2.0
"""Between two reports of an engine."""


class BasePrecision(Spec):
    """In which number format an engine runs a base by itself, and what it measured."""

    base: BaseModelSpec
    precision: PrecisionChoice


class EngineReport(Spec):
    """One heartbeat. The address is the engine's identity: a new process there is the engine."""

    url: str = Field(
        pattern=r"^https?://[^/?#@\s]+$",
        max_length=255,
        description="where the API reaches the engine",
    )
    status: Literal["ready", "draining"] = "ready"
    bases: tuple[BaseModelSpec, ...] = Field(
        (), description="models in memory, per task and precision"
    )
    precisions: tuple[BasePrecision, ...] = Field(
        (), description="of the bases asked for so far, where no format is set for all"
    )
    max_bases: int = Field(1, ge=1)
    bundles: tuple[str, ...] = Field(
        (),
        description="SHA-256 of the adapters in memory, and of the models that are trained whole",
    )
    running: int = Field(0, ge=0, description="sequences in the batch")
    waiting: int = Field(0, ge=0, description="sequences in the queue")
    max_running: int = Field(1, ge=1)


class Refusal(Spec):
    """Why an engine answers with an error instead of events."""

    message: str
    param: str | None = None
    code: str | None = None


class RefusalBody(Spec):
    """Body of every answer of an engine whose status is not 200."""

    error: Refusal
