"""What the engine works on: a request made ready, and its sequences.

Plain Python; tensors belong to the runner.
"""

from dataclasses import dataclass, field

from core.spec.generation import FinishReason, SamplingSpec
from core.spec.run import BaseModelSpec


@dataclass(frozen=True)
class ModelKey:
    """Which weights answer: a base, and on it one adapter (by the hash of its archive) or none."""

    base: BaseModelSpec
    adapter_sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt as token ids and everything that decides how it goes on.

    `max_tokens` is resolved (it never reaches past the context); a token of
    `end_token_ids` ends a sequence and has no text.
    """

    id: str
    model: ModelKey
    prompt_tokens: tuple[int, ...]
    sampling: SamplingSpec
    max_tokens: int
    end_token_ids: frozenset[int]


@dataclass(eq=False)
class Sequence:
    """One choice of a request: the tokens sampled so far, and why it ended once it has."""

    request: Request
    choice: int
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
