"""How fast a model answers, as measured once."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.run import BaseModelSpec, BundleRef
from core.spec.serving import ServingSpec


class SpeedTarget(Spec):
    """What is measured; the name of a model may come to stand for something else."""

    base: BaseModelSpec
    adapter: BundleRef | None
    serving: ServingSpec


class FirstTokenSeconds(Spec):
    """From sending a request to its first token."""

    median: float
    max: float


class SpeedLevel(Spec):
    """So many requests at once; the tokens are those written by all of them together."""

    requests: int
    first_token_seconds: FirstTokenSeconds
    tokens_per_second: float


class SpeedResult(Spec):
    """What a speed test has found; the prompts are random and differ from each other."""

    hardware: str
    prompt_tokens: int = Field(description="of each request")
    completion_tokens: int = Field(description="of each request")
    levels: tuple[SpeedLevel, ...]
    is_complete: bool = Field(description="false when time ran out before the last level")
