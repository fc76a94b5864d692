"""What the engine works on: a request made ready, and its sequences.

Plain Python; tensors belong to the runner.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from core.batching.turn_format import TurnFormat
from core.engine.policy.blocks import Content
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec
from core.spec.objective import Task
from core.spec.precision import NumberFormat


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


class Matcher(Protocol):
    """Matches one answer against a grammar, token by token."""

    @property
    def error(self) -> str:
        """Why no token can follow; empty as long as one can."""

    def allowed(self) -> Any:
        """Return a numpy array of booleans (V,): which tokens may come next."""

    def take(self, token: int) -> None:
        """Advance by a token that was allowed."""


class Grammar(Protocol):
    """The grammar of structured output, which every choice of a request follows."""

    @property
    def lark(self) -> str:
        """The grammar in llguidance's dialect of Lark."""

    def start(self) -> Matcher:
        """Return a matcher at the beginning of an answer."""


VIRTUAL_TOKEN = -1
"""Stands at the positions of virtual tokens, which have no id in the vocabulary."""


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
    """Positions before the prompt that belong to the adapter."""
    grammar: Grammar | None = None
    """Of structured output; None where any token may follow."""
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
class SequenceState(Generic[RequestType]):
    """One choice of a request with the tokens that it has written, or one text to label.

    `all_tokens` has the token at each position: virtual tokens, prompt, and what it wrote.
    """

    request: RequestType
    index: int
    """The number of the choice, or of the text, in its request."""
    first: "SequenceState[RequestType] | None" = None
    """The first choice, whose reading of the prompt this one waits for; None for that one."""
    arrival: int = 0
    tokens: list[int] = field(default_factory=list)
    all_tokens: list[int] = field(default_factory=list)
    is_finished: bool = False

    computed: int = 0
    """So many positions have been through the model."""
    blocks: list[int] = field(default_factory=list)
    """Of the cache, in the order of the positions that they hold."""
    content: Content = None
    """Of the full blocks that the pool knows of."""
    known_blocks: int = 0
    matcher: Matcher | None = None
    """Of the grammar of its request."""
    scores: dict[int, Any] = field(default_factory=dict)
    """How likely the tokens of its prompt were, by position, if that was asked for."""

    def __post_init__(self) -> None:
        self.all_tokens = self.request.opening(self.index)
        self.content = self.request.model
        if isinstance(self.request, Request) and self.request.grammar is not None:
            self.matcher = self.request.grammar.start()

    @property
    def scores_prompt(self) -> bool:
        """Whether every position of the prompt has to be read, even if the cache holds it."""
        request = self.request
        return isinstance(request, Request) and request.sampling.score_prompt and self.index == 0

    @property
    def flow(self) -> Hashable:
        """Whose turn it is when this sequence is served, among those of the same base."""
        return self.request.project, self.request.model.adapter_sha256

    @property
    def unread(self) -> int:
        """How many positions have not been through the model."""
        return len(self.all_tokens) - self.computed

    @property
    def opening_length(self) -> int:
        """How many positions there were before it wrote anything."""
        return len(self.all_tokens) - len(self.tokens)

    def note_scores(self, first: int, scores: Iterable[Any]) -> None:
        """Keep the scores of positions of the prompt, from `first` on."""
        self.scores.update(enumerate(scores, first))

    def write(self, token: int) -> None:
        """Add a token that was sampled."""
        self.tokens.append(token)
        self.all_tokens.append(token)
        if self.matcher is not None:
            self.matcher.take(token)


AnySequence = SequenceState[Any]
