"""Prepared requests and the state of their sequences.

Plain Python; tensors belong to the runner.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from core.batching.turn_format import TurnFormat
from core.engine.policy.blocks import Content
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import PoolingSpec
from core.spec.generation import SamplingSpec
from core.spec.objective import Task
from core.spec.precision import NumberFormat


@dataclass(frozen=True)
class BaseKey:
    """Resident weights: a base loaded for one task, possibly with a merged adapter.

    `merged` is the hash of an adapter's archive, which is merged into dense weights;
    `spec.quantization` applies to the result. Each number format has its own key.
    """

    spec: BaseModelSpec
    task: Task = "generation"
    merged_sha256: str | None = None
    precision: NumberFormat = "fp32"


@dataclass(frozen=True)
class ModelKey:
    """The weights that answer: a base and optionally an adapter, by the hash of its archive."""

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
        """Why no token can follow; empty while one can."""

    def allowed(self) -> Any:
        """Return the allowed next tokens, a boolean numpy array (V,)."""

    def take(self, token: int) -> None:
        """Advance by an allowed token."""


class Grammar(Protocol):
    """The grammar of structured output for every choice of a request."""

    @property
    def lark(self) -> str:
        """The grammar in llguidance's dialect of Lark."""

    def start(self) -> Matcher:
        """Return a matcher for a new answer."""


VIRTUAL_TOKEN = -1
"""The id at positions of virtual tokens, which are not in the vocabulary."""


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt as token ids, with everything that determines its completion.

    `max_tokens` is resolved: it fits the context and the cache. A token of `end_token_ids` ends a
    sequence and has no text. An encoder-decoder reads the prompt with its encoder.
    """

    id: str
    model: ModelKey
    prompt_tokens: tuple[int, ...]
    sampling: SamplingSpec
    max_tokens: int
    end_token_ids: frozenset[int]
    project: str = ""
    """The project of the caller, for fair scheduling."""
    virtual_tokens: int = 0
    """Virtual positions of the adapter before the prompt."""
    grammar: Grammar | None = None
    """Of structured output; None if any token may follow."""
    turn_format: TurnFormat | None = None
    """How answers are split into reasoning, text and tool calls; None if they are plain text."""
    begins_in_reasoning: bool = False
    """Whether the prompt opens the reasoning."""
    tools: Mapping[str, Any] | None = None
    """The parameters of the offered tools, by name."""

    @property
    def sequences(self) -> int:
        """The number of sequences: one per choice."""
        return self.sampling.n

    def opening(self, index: int) -> list[int]:
        """Return the tokens that a choice reads before it generates."""
        return [VIRTUAL_TOKEN] * self.virtual_tokens + list(self.prompt_tokens)


@dataclass(frozen=True)
class LabelsSpec:
    """The labels of a classifier; with `multi_label`, each is decided separately."""

    labels: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True, eq=False)
class TextsRequest:
    """Texts as token ids, each with one result: a score per label, or a vector."""

    id: str
    model: ModelKey
    texts: tuple[tuple[int, ...], ...]
    wanted: LabelsSpec | PoolingSpec
    project: str = ""
    is_background: bool = False
    """Whether it gives way to live requests."""

    @property
    def sequences(self) -> int:
        """The number of sequences: one per text."""
        return len(self.texts)

    def opening(self, index: int) -> list[int]:
        """Return the tokens of a text."""
        return list(self.texts[index])


AnyRequest = Request | TextsRequest
RequestType = TypeVar("RequestType", Request, TextsRequest)


@dataclass(eq=False)
class SequenceState(Generic[RequestType]):
    """A choice of a request with its generated tokens, or a text with one result.

    `all_tokens` has the token of each position: virtual tokens, prompt and generated tokens.
    """

    request: RequestType
    index: int
    """The index of the choice, or of the text, in its request."""
    first: "SequenceState[RequestType] | None" = None
    """The first choice, which reads the prompt for all; None for the first choice itself."""
    arrival: int = 0
    tokens: list[int] = field(default_factory=list)
    all_tokens: list[int] = field(default_factory=list)
    is_finished: bool = False

    computed: int = 0
    """The number of positions that the model has processed."""
    blocks: list[int] = field(default_factory=list)
    """Of the cache, in the order of their positions."""
    content: Content = None
    """Of the full blocks recorded in the pool."""
    known_blocks: int = 0
    matcher: Matcher | None = None
    """Of the grammar of its request."""
    scores: dict[int, Any] = field(default_factory=dict)
    """The scores of its prompt's tokens by position, if requested."""

    def __post_init__(self) -> None:
        self.all_tokens = self.request.opening(self.index)
        self.content = self.request.model
        if isinstance(self.request, Request) and self.request.grammar is not None:
            self.matcher = self.request.grammar.start()

    @property
    def scores_prompt(self) -> bool:
        """Whether every position of the prompt must be computed, even if it is cached."""
        request = self.request
        return isinstance(request, Request) and request.sampling.score_prompt and self.index == 0

    @property
    def flow(self) -> Hashable:
        """The flow of fair scheduling among the sequences of the same base."""
        return self.request.project, self.request.model.adapter_sha256

    @property
    def unread(self) -> int:
        """The number of positions that the model has not processed yet."""
        return len(self.all_tokens) - self.computed

    @property
    def opening_length(self) -> int:
        """The number of positions before the first generated token."""
        return len(self.all_tokens) - len(self.tokens)

    def note_scores(self, first: int, scores: Iterable[Any]) -> None:
        """Store the scores of prompt positions, beginning at `first`."""
        self.scores.update(enumerate(scores, first))

    def write(self, token: int) -> None:
        """Append a sampled token."""
        self.tokens.append(token)
        self.all_tokens.append(token)
        if self.matcher is not None:
            self.matcher.take(token)


AnySequence = SequenceState[Any]
