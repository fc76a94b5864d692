"""Builds the engine requests of a parity check and parses the responses.

Worker and API send them over their own connections.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import InvalidRequest, Unavailable
from core.parity.rounding import MANTISSA_BITS
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.generation import (
    GenerationDelta,
    GenerationEvent,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
)
from core.spec.parity import NumberFormat, ReplayedRow, ReplayedText, nats


class UnexpectedAnswer(InvalidRequest):
    """The engine answers something other than what it was asked for, and would again."""

    code = "unexpected_answer"


@dataclass(frozen=True)
class Candidate:
    """A model to check."""

    base: BaseModelSpec
    bundle: BundleRef
    project: str


@dataclass(frozen=True)
class Reply:
    """The engine's response for a row: its prompt tokens, and log-probabilities in nats."""

    prompt_ids: tuple[int, ...]
    figures: tuple[float, ...]
    """One for each of the reference; empty if the prompt tokens differ."""
    precision: NumberFormat | None = None
    """The number format of the engine's computation, if reported."""


@dataclass(frozen=True)
class Replies:
    """The replies, one for each row of the reference."""

    rows: tuple[Reply, ...]

    @property
    def engine_precision(self) -> NumberFormat | None:
        """The coarsest number format of any reply."""
        said = {row.precision for row in self.rows if row.precision is not None}
        return min(said, key=lambda each: MANTISSA_BITS[each], default=None)


def generation_request(row: ReplayedRow, candidate: Candidate) -> GenerationRequest:
    """Return the request that scores the row's own answer with the engine."""
    of_prompt = row.logprobs[: len(row.prompt_ids)]
    return GenerationRequest(
        id=f"parity-{row.line}",
        base=candidate.base,
        adapter=candidate.bundle,
        prompt=row.prompt,
        sampling=SamplingSpec(
            temperature=0,
            seed=0,
            top_logprobs=0,
            given_answer=row.answer,
            score_prompt=any(logprob is not None for logprob in of_prompt),
        ),
        project=candidate.project,
    )


def written_reply(row: ReplayedRow, events: Sequence[GenerationEvent]) -> Reply:
    """Read the events of such a request. Raises Unavailable or UnexpectedAnswer for half."""
    started = next((each for each in events if isinstance(each, GenerationStarted)), None)
    written = [
        token.logprob
        for each in events
        if isinstance(each, GenerationDelta)
        for token in each.logprobs
    ]
    if started is None or len(written) != len(row.answer):
        raise Unavailable("its answer ended too early", code="engine_unavailable")
    if started.prompt_ids != row.prompt_ids:
        return Reply(started.prompt_ids, (), started.precision)
    read = [token.logprob for token in started.prompt] or [None] * len(row.prompt_ids)
    pairs = list(zip([*read, *written], row.logprobs, strict=True))
    figures = [found for found, wanted in pairs if found is not None and wanted is not None]
    if len(figures) != sum(wanted is not None for _, wanted in pairs):
        raise UnexpectedAnswer("it does not say how likely the prompt is")
    return Reply(started.prompt_ids, tuple(figures), started.precision)


def classification_request(row: ReplayedText, candidate: Candidate) -> ClassificationRequest:
    return ClassificationRequest(
        id=f"parity-{row.line}",
        base=candidate.base,
        adapter=candidate.bundle,
        texts=(row.text,),
        project=candidate.project,
    )


def labelled_reply(row: ReplayedText, answer: ClassificationAnswer) -> Reply:
    """Read the scores of a text; UnexpectedAnswer when they are of other labels."""
    (scores,) = answer.scores
    if scores.keys() != row.logprobs.keys():
        raise UnexpectedAnswer(f"it knows the labels {', '.join(scores)}", code="other_labels")
    figures = tuple(nats(scores[label]) for label in row.logprobs)
    return Reply((), figures, answer.precision)
