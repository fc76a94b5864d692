"""Turns the device's results into events for the caller, one request at a time."""

from collections.abc import Iterator

from core.batching.turn_reader import Part, TurnMarkers, TurnReader
from core.engine.policy.request import Request, SequenceState
from core.engine.results import SampledToken, TokenScores
from core.engine.text.text_stream import Piece, TextStream
from core.engine.text.texts import TextsAnswer, TextsRead
from core.engine.text.token_bytes import TokenBytes
from core.errors import TunesmithError
from core.spec.generation import (
    ChoiceFinished,
    FinishReason,
    GeneratedToken,
    GenerationDelta,
    GenerationEvent,
    GenerationStarted,
    PromptToken,
    TokenLogprob,
    ToolCalled,
)

Item = GenerationEvent | TextsRead | TunesmithError
"""An event, or the final error of the request."""


class Detokenizer:
    """Decodes the tokens of a request to text, in complete characters and without stop strings."""

    def __init__(self, request: Request, token_bytes: TokenBytes, hardware: str = "") -> None:
        self._request = request
        self._hardware = hardware
        self._token_bytes = token_bytes
        drops_space = request.model.task == "seq2seq" and token_bytes.marks_first_word
        self._streams = [
            TextStream(request.sampling.stop, drops_space) for _ in range(request.sequences)
        ]
        self._readers = _readers(request)
        format_ = request.turn_format
        self._codes = {} if format_ is None else format_.control.codes
        self._reasoning_tokens = [0] * request.sequences
        self._is_started = False

    def take(
        self, sequence: SequenceState[Request], token: SampledToken
    ) -> Iterator[GenerationEvent]:
        """Append a token to a sequence, which may finish it; yield the resulting events."""
        if not self._is_started:
            self._is_started = True
            yield self._started(sequence)
        if self._request.max_tokens == 0:
            sequence.is_finished = True
            yield ChoiceFinished(choice=sequence.index, finish_reason="length", completion_tokens=0)
            return
        sequence.write(token.token_id)
        stream = self._streams[sequence.index]
        is_end = token.token_id in self._request.end_token_ids
        if not is_end:
            record = _record(token, self._token_bytes)
            code = self._codes.get(token.token_id, "")
            own_bytes = b"" if code else self._token_bytes.text_bytes(token.token_id)
            yield from self._deltas(sequence, stream.push(own_bytes, record, code))
            reader = self._readers[sequence.index]
            self._reasoning_tokens[sequence.index] += reader is not None and reader.is_reasoning
        reason = _finish_reason(sequence, is_end=is_end or stream.stopped)
        if reason is not None:
            sequence.is_finished = True
            yield from self._deltas(sequence, stream.finish())
            calls = list(self._rest(sequence))
            yield from calls
            if stream.stopped:
                reason = "stop"
            yield ChoiceFinished(
                choice=sequence.index,
                finish_reason="tool_calls" if any(map(_is_call, calls)) else reason,
                completion_tokens=len(sequence.tokens),
                reasoning_tokens=self._reasoning_tokens[sequence.index],
            )

    def _started(self, sequence: SequenceState[Request]) -> GenerationStarted:
        prompt, precision = self._request.prompt_tokens, self._request.model.precision
        given = self._request.sampling.given_answer is not None
        return GenerationStarted(
            prompt_tokens=len(prompt),
            prompt=self._prompt(sequence),
            prompt_ids=prompt if given else (),
            hardware=", ".join(filter(None, (self._hardware, precision))),
            precision=precision,
        )

    def _deltas(
        self, sequence: SequenceState[Request], piece: Piece | None
    ) -> Iterator[GenerationDelta]:
        """Yield the new text of a choice, without a possible marker or tool call."""
        if piece is None:
            return
        reader = self._readers[sequence.index]
        part = Part(piece.text) if reader is None else reader.push(piece.text)
        if part or piece.logprobs:
            yield GenerationDelta(
                choice=sequence.index,
                text=part.text,
                reasoning=part.reasoning,
                logprobs=piece.logprobs,
            )

    def _rest(self, sequence: SequenceState[Request]) -> Iterator[GenerationDelta | ToolCalled]:
        """Yield the text or tool calls held back until the end of a choice."""
        reader = self._readers[sequence.index]
        if reader is None:
            return
        rest = reader.finish()
        if rest.text or rest.reasoning:
            yield GenerationDelta(choice=sequence.index, text=rest.text, reasoning=rest.reasoning)
        for call in rest.calls:
            yield ToolCalled(choice=sequence.index, name=call.name, arguments=call.arguments)

    def _prompt(self, sequence: SequenceState[Request]) -> tuple[PromptToken, ...]:
        """Return the prompt's tokens with their scores, if requested."""
        request = self._request
        if not request.sampling.score_prompt:
            return ()
        decoded = []
        for number, token_id in enumerate(request.prompt_tokens):
            scores = sequence.scores.get(request.virtual_tokens + number)
            own_bytes = self._token_bytes.decoded_bytes(token_id)
            decoded.append(
                PromptToken(
                    token=own_bytes.decode("utf-8", errors="replace"),
                    bytes=tuple(self._token_bytes.text_bytes(token_id)),
                    logprob=None if scores is None else scores.logprob,
                    top=() if scores is None else _decoded_top(scores, self._token_bytes),
                )
            )
        return tuple(decoded)


def _readers(request: Request) -> list[TurnReader | None]:
    """Return the parser of each choice; None for plain text."""
    format_ = request.turn_format
    if format_ is None:
        return [None] * request.sequences
    markers = TurnMarkers(format_)
    return [
        TurnReader(
            format_,
            markers,
            request.tools or {},
            begins_in_reasoning=request.begins_in_reasoning,
        )
        for _ in range(request.sequences)
    ]


AnyAnswer = Detokenizer | TextsAnswer


def _finish_reason(sequence: SequenceState[Request], *, is_end: bool) -> FinishReason | None:
    if is_end:
        return "stop"
    return "length" if len(sequence.tokens) == sequence.request.max_tokens else None


def _is_call(item: GenerationDelta | ToolCalled) -> bool:
    return isinstance(item, ToolCalled)


def _record(token: SampledToken, token_bytes: TokenBytes) -> GeneratedToken | None:
    """Return a token and its alternatives as text, if log-probabilities were requested."""
    if token.scores is None:
        return None
    decoded = _decoded(token.token_id, token.scores.logprob, token_bytes)
    return GeneratedToken(**vars(decoded), top=_decoded_top(token.scores, token_bytes))


def _decoded_top(scores: TokenScores, token_bytes: TokenBytes) -> tuple[TokenLogprob, ...]:
    return tuple(_decoded(token_id, logprob, token_bytes) for token_id, logprob in scores.top)


def _decoded(token_id: int, logprob: float, token_bytes: TokenBytes) -> TokenLogprob:
    own_bytes = token_bytes.decoded_bytes(token_id)
    text = own_bytes.decode("utf-8", errors="replace")
    return TokenLogprob(token=text, bytes=tuple(own_bytes), logprob=logprob)
