"""The speed of a model, as measured once."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.serving import ServingSpec


class SpeedTarget(Spec):
    """The measured model; unlike its name, it never changes."""

    base: BaseModelSpec
    adapter: BundleRef | None
    serving: ServingSpec


class FirstTokenSeconds(Spec):
    """From the request to its first token."""

    median: float
    max: float


class SpeedLevel(Spec):
    """A number of concurrent requests, and their total speed."""

    requests: int
    first_token_seconds: FirstTokenSeconds
    tokens_per_second: float


class SpeedResult(Spec):
    """The result of a speed test; the prompts are random and different."""

    hardware: str
    prompt_tokens: int = Field(description="of each request")
    completion_tokens: int = Field(description="of each request")
    levels: tuple[SpeedLevel, ...]
    is_complete: bool = Field(description="false if time ran out before the last level")
