"""What the engine works on: a request made ready, and its sequences.

Plain Python; tensors belong to the runner.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from core.spec.generation import SamplingSpec
from core.spec.objective import Task
from core.spec.run import BaseModelSpec


@dataclass(frozen=True)
class BaseKey:
    """Weights that stay in memory: a base, loaded for one task."""

    spec: BaseModelSpec
    task: Task = "generation"


@dataclass(frozen=True)
class ModelKey:
    """Which weights answer: a base, and on it one adapter (by the hash of its archive) or none."""

    base: BaseModelSpec
    adapter_sha256: str | None = None
    task: Task = "generation"

    @property
    def base_key(self) -> BaseKey:
        return BaseKey(self.base, self.task)


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt as token ids and everything that decides how it goes on.

    `max_tokens` is resolved (it never reaches past the context); a token of
    `end_token_ids` ends a sequence and has no text. An encoder-decoder reads the prompt with its
    encoder and writes a text of its own.
    """

    id: str
    model: ModelKey
    prompt_tokens: tuple[int, ...]
    sampling: SamplingSpec
    max_tokens: int
    end_token_ids: frozenset[int]

    @property
    def sequences(self) -> int:
        """How many the scheduler has to run: one per choice."""
        return self.sampling.n


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """Texts to label, as token ids; `multi_label` decides about each label by itself."""

    id: str
    model: ModelKey
    texts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    multi_label: bool

    @property
    def sequences(self) -> int:
        """How many the scheduler has to run: one per text."""
        return len(self.texts)


AnyRequest = Request | ScoreRequest
RequestType = TypeVar("RequestType", Request, ScoreRequest)


@dataclass(eq=False)
class Sequence(Generic[RequestType]):
    """One choice of a request and the tokens sampled so far, or one text to label."""

    request: RequestType
    index: int
    """The number of the choice, or of the text, in its request."""
    tokens: list[int] = field(default_factory=list)
    is_finished: bool = False
