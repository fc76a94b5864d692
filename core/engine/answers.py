"""From what the device computed to what the caller is told, one request at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.engine.request import Request, ScoreRequest, Sequence
from core.engine.sampler import SampledToken
from core.engine.text import Piece, TextStream
from core.engine.token_bytes import TokenBytes
from core.errors import TunesmithError
from core.spec.generation import (
    ChoiceFinished,
    FinishReason,
    GeneratedToken,
    GenerationDelta,
    GenerationEvent,
    GenerationStarted,
    TokenLogprob,
)


@dataclass(frozen=True)
class TextScored:
    """The probability of every label for one text of a ScoreRequest."""

    index: int
    scores: dict[str, float]


Item = GenerationEvent | TextScored | TunesmithError
"""An event, or the error that ends the request."""


class WrittenAnswer:
    """Spells the tokens of a request as text, whole characters and nothing of a stop string."""

    def __init__(self, request: Request, token_bytes: TokenBytes) -> None:
        self._request = request
        self._token_bytes = token_bytes
        drops_space = request.model.task == "seq2seq" and token_bytes.marks_first_word
        self._streams = [
            TextStream(request.sampling.stop, drops_space) for _ in range(request.sequences)
        ]
        self._is_started = False

    def take(self, sequence: Sequence[Request], token: SampledToken) -> Iterator[GenerationEvent]:
        """Add one token to a sequence, perhaps its last; yield what follows from it."""
        if not self._is_started:
            self._is_started = True
            yield GenerationStarted(prompt_tokens=len(self._request.prompt_tokens))
        sequence.tokens.append(token.token_id)
        stream = self._streams[sequence.index]
        is_end = token.token_id in self._request.end_token_ids
        if not is_end:
            text_bytes = self._token_bytes.text_bytes(token.token_id)
            record = _record(token, self._token_bytes)
            yield from _deltas(sequence, stream.push(text_bytes, record))
        reason = _finish_reason(sequence, is_end=is_end or stream.stopped)
        if reason is not None:
            sequence.is_finished = True
            yield from _deltas(sequence, stream.finish())
            yield ChoiceFinished(
                choice=sequence.index,
                finish_reason="stop" if stream.stopped else reason,
                completion_tokens=len(sequence.tokens),
            )


class ScoredAnswer:
    """Names the probabilities of each text by their labels."""

    def __init__(self, request: ScoreRequest) -> None:
        self._labels = request.labels

    def take(
        self, sequence: Sequence[ScoreRequest], scores: tuple[float, ...]
    ) -> Iterator[TextScored]:
        sequence.is_finished = True
        yield TextScored(sequence.index, dict(zip(self._labels, scores, strict=True)))


AnyAnswer = WrittenAnswer | ScoredAnswer


def _finish_reason(sequence: Sequence[Request], *, is_end: bool) -> FinishReason | None:
    if is_end:
        return "stop"
    return "length" if len(sequence.tokens) == sequence.request.max_tokens else None


def _deltas(sequence: Sequence[Request], piece: Piece | None) -> Iterator[GenerationDelta]:
    if piece is not None:
        yield GenerationDelta(choice=sequence.index, text=piece.text, logprobs=piece.logprobs)


def _record(token: SampledToken, token_bytes: TokenBytes) -> GeneratedToken | None:
    """Spell a token and its alternatives, when log-probabilities were asked for."""
    if token.scores is None:
        return None

    def spelled(token_id: int, logprob: float) -> dict[str, object]:
        own_bytes = token_bytes.spelled_bytes(token_id)
        text = own_bytes.decode("utf-8", errors="replace")
        return {"token": text, "bytes": tuple(own_bytes), "logprob": logprob}

    return GeneratedToken(
        **spelled(token.token_id, token.scores.logprob),
        top=tuple(TokenLogprob(**spelled(*each)) for each in token.scores.top),
    )
