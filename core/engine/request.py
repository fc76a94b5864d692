"""What the engine works on: a request made ready, and its sequences.

Plain Python; tensors belong to the runner.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from core.batching.turn_format import TurnFormat
from core.engine.blocks import Content
from core.spec.generation import SamplingSpec
from core.spec.objective import Task
from core.spec.precision import NumberFormat
from core.spec.run import BaseModelSpec


@dataclass(frozen=True)
class BaseKey:
    """Weights that stay in memory: a base, loaded for one task, or one with an adapter in it.

    What is merged (by the hash of its archive) goes into plain weights, and `spec.quantization`
    is that of the result. One base in two number formats is two of them.
    """

    spec: BaseModelSpec
    task: Task = "generation"
    merged_sha256: str | None = None
    precision: NumberFormat = "fp32"


@dataclass(frozen=True)
class ModelKey:
    """Which weights answer: a base, and on it one adapter (by the hash of its archive) or none."""

    base: BaseModelSpec
    adapter_sha256: str | None = None
    task: Task = "generation"
    merged_sha256: str | None = None
    precision: NumberFormat = "fp32"

    @property
    def base_key(self) -> BaseKey:
        return BaseKey(self.base, self.task, self.merged_sha256, self.precision)


class HeldAnswer(Protocol):
    """One answer that is held to a form."""

    @property
    def error(self) -> str:
        """Why the form cannot be followed any further; empty as long as it can."""

    def allowed(self) -> Any:
        """Return by token (V,), as booleans of numpy, which may come next."""

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""


class Form(Protocol):
    """What every choice of a request is held to."""

    @property
    def lark(self) -> str:
        """The form as a grammar in llguidance's kind of Lark."""

    def start(self) -> HeldAnswer:
        """Return what holds one answer, from its first token on."""


VIRTUAL_TOKEN = -1
"""Stands in the places of virtual tokens, which have no number in the vocabulary."""


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt as token ids and everything that decides how it goes on.

    `max_tokens` is resolved (it never reaches past the context, nor past the cache); a token of
    `end_token_ids` ends a sequence and has no text. An encoder-decoder reads the prompt with its
    encoder and writes a text of its own.
    """

    id: str
    model: ModelKey
    prompt_tokens: tuple[int, ...]
    sampling: SamplingSpec
    max_tokens: int
    end_token_ids: frozenset[int]
    project: str = ""
    """On whose behalf; no project crowds out another one."""
    virtual_tokens: int = 0
    """Places of the cache before the prompt that belong to the adapter."""
    form: Form | None = None
    """What every choice is held to."""
    turn_format: TurnFormat | None = None
    """How the parts of an answer are told apart; None where it is all text."""
    begins_in_reasoning: bool = False
    """Whether the prompt has opened the reasoning."""
    tools: Mapping[str, Any] | None = None
    """The parameters of the tools that were offered, by name."""

    @property
    def sequences(self) -> int:
        """How many the scheduler has to run: one per choice."""
        return self.sampling.n

    def opening(self, index: int) -> list[int]:
        """Return what a choice has to read before it writes."""
        return [VIRTUAL_TOKEN] * self.virtual_tokens + list(self.prompt_tokens)


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """Texts to label, as token ids; `multi_label` decides about each label by itself."""

    id: str
    model: ModelKey
    texts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    multi_label: bool
    project: str = ""

    @property
    def sequences(self) -> int:
        """How many the scheduler has to run: one per text."""
        return len(self.texts)

    def opening(self, index: int) -> list[int]:
        """Return the text to read."""
        return list(self.texts[index])


AnyRequest = Request | ScoreRequest
RequestType = TypeVar("RequestType", Request, ScoreRequest)


@dataclass(eq=False)
class Sequence(Generic[RequestType]):
    """One choice of a request with the tokens that it has written, or one text to label.

    `places` is all that it has to read, in order: virtual tokens, prompt, and what it wrote.
    """

    request: RequestType
    index: int
    """The number of the choice, or of the text, in its request."""
    first: "Sequence[RequestType] | None" = None
    """The first choice, whose reading of the prompt this one waits for; None for that one."""
    arrival: int = 0
    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    is_finished: bool = False

    computed: int = 0
    """So many places have been through the model."""
    blocks: list[int] = field(default_factory=list)
    """Those of the cache that hold the places, in order."""
    content: Content = None
    """Of the full blocks that the pool knows of."""
    known_blocks: int = 0
    held: HeldAnswer | None = None
    """What holds it to a form."""
    scores: dict[int, Any] = field(default_factory=dict)
    """How likely the tokens of its prompt were, by place, if that was asked for."""

    def __post_init__(self) -> None:
        self.places = self.request.opening(self.index)
        self.content = self.request.model
        if isinstance(self.request, Request) and self.request.form is not None:
            self.held = self.request.form.start()

    @property
    def scores_places(self) -> bool:
        """Whether every place of the prompt has to be read, even if the cache knows it."""
        request = self.request
        return isinstance(request, Request) and request.sampling.score_prompt and self.index == 0

    @property
    def flow(self) -> Hashable:
        """Whose turn it is when this sequence is served, among those of the same base."""
        return self.request.project, self.request.model.adapter_sha256

    @property
    def opening_length(self) -> int:
        """How many places there were before it wrote anything."""
        return len(self.places) - len(self.tokens)

    def note_scores(self, first: int, scores: Iterable[Any]) -> None:
        """Keep the scores of places of the prompt, `first` and those after it."""
        self.scores.update(enumerate(scores, first))

    def write(self, token: int) -> None:
        """Add a token that was sampled."""
        self.tokens.append(token)
        self.places.append(token)
        if self.held is not None:
            self.held.take(token)
