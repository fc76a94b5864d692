"""The engine: requests in, events out, one turn of the device at a time.

`step()` is schedule → run → postprocess. One thread calls it; requests come in and are
cancelled from any thread.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from core.engine.request import Request, Sequence
from core.engine.runner import Runner
from core.engine.sampler import SampledToken, sample
from core.engine.scheduler import Group, Prefill, Scheduler
from core.engine.text import Piece, TextStream
from core.engine.token_bytes import TokenBytes
from core.errors import TunesmithError, Unavailable
from core.spec.generation import (
    ChoiceFinished,
    FinishReason,
    GeneratedToken,
    GenerationDelta,
    GenerationEvent,
    GenerationStarted,
    TokenLogprob,
)

logger = logging.getLogger(__name__)

Item = GenerationEvent | TunesmithError
"""An event, or the error that ends the request."""

Emit = Callable[[Item], None]
"""Takes the items of one request in order; called on the engine's thread, must not block."""


@dataclass(eq=False)
class Ticket:
    """A request inside the engine, from `submit` to its last event; the handle to cancel it."""

    request: Request
    token_bytes: TokenBytes
    emit: Emit
    streams: list[TextStream]
    unfinished: int
    is_started: bool = False


class Engine:
    """Owns scheduler, runner and the tickets of all requests in flight."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self._tickets: dict[Request, Ticket] = {}
        self._changed = threading.Condition()
        self._is_stopping = False

    def submit(self, request: Request, token_bytes: TokenBytes, emit: Emit) -> Ticket:
        """Queue a request; Unavailable `queue_full` when too many wait already."""
        with self._changed:
            if self._is_stopping:
                raise _stopping()
            if not self.scheduler.can_add():
                raise Unavailable(
                    f"{len(self.scheduler.waiting)} sequences already wait for this engine. "
                    "Try again in a few seconds.",
                    code="queue_full",
                )
            sequences = self.scheduler.add(request)
            streams = [TextStream(request.sampling.stop) for _ in sequences]
            ticket = Ticket(request, token_bytes, emit, streams, unfinished=len(sequences))
            self._tickets[request] = ticket
            self._changed.notify()
            return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request, whatever its state; its rows leave the device at the next step."""
        with self._changed:
            self._end(ticket)
            self._changed.notify()

    def run(self) -> None:
        """Step until `stop`; then end what is left with an error."""
        while not self._is_stopping:
            if not self.step():
                with self._changed:
                    self._changed.wait_for(self._has_work)
        with self._changed:
            for ticket in list(self._tickets.values()):
                self._fail(ticket, _stopping())

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def step(self) -> bool:
        """Give one group its turn; return False when there was nothing to do."""
        with self._changed:
            self._drop_ended_sequences()
            turn = self.scheduler.schedule()
        if turn is None:
            return False
        group = turn.group
        try:
            if isinstance(turn, Prefill):
                logits_BV = self.runner.prefill(group)
            else:
                logits_BV = self.runner.decode(group)
            sampled = sample(logits_BV, group.sequences)
        except Exception as error:
            self._fail_group(group, error)
        else:
            self._postprocess(group, sampled)
        return True

    def _has_work(self) -> bool:
        return self._is_stopping or bool(self.scheduler.waiting or self.scheduler.groups)

    def _postprocess(self, group: Group, sampled: list[SampledToken]) -> None:
        """Append the new tokens, tell the callers and retire what has finished."""
        with self._changed:
            for sequence, token in zip(group.sequences, sampled, strict=True):
                ticket = self._tickets.get(sequence.request)
                if ticket is not None:
                    _advance(ticket, sequence, token)
                    if ticket.unfinished == 0:
                        self._end(ticket)
            self._drop_ended_sequences()

    def _drop_ended_sequences(self) -> None:
        """Take finished, failed and cancelled sequences off the device."""
        for group in list(self.scheduler.groups):
            kept = [
                row
                for row, sequence in enumerate(group.sequences)
                if sequence.finish_reason is None and sequence.request in self._tickets
            ]
            if len(kept) < len(group.sequences):
                kept_sequences = {group.sequences[row] for row in kept}
                self.scheduler.retire(group, set(group.sequences) - kept_sequences)
                self.runner.retain(group, kept)

    def _fail_group(self, group: Group, error: Exception) -> None:
        if not isinstance(error, TunesmithError):
            logger.exception("A turn of %d sequences failed.", len(group.sequences))
            error = Unavailable(
                "The engine failed while it computed this answer; its log says why.",
                code="engine_failed",
            )
        with self._changed:
            for sequence in group.sequences:
                ticket = self._tickets.get(sequence.request)
                if ticket is not None:
                    self._fail(ticket, error)
            self._drop_ended_sequences()

    def _fail(self, ticket: Ticket, error: TunesmithError) -> None:
        self._end(ticket)
        ticket.emit(error)

    def _end(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.request, None)
        self.scheduler.withdraw(ticket.request)


def _advance(ticket: Ticket, sequence: Sequence, token: SampledToken) -> None:
    """Add one token to a sequence and emit what follows from it."""
    if not ticket.is_started:
        ticket.is_started = True
        ticket.emit(GenerationStarted(prompt_tokens=len(ticket.request.prompt_tokens)))
    sequence.tokens.append(token.token_id)
    stream = ticket.streams[sequence.choice]
    is_end = token.token_id in ticket.request.end_token_ids
    if not is_end:
        text_bytes = ticket.token_bytes.text_bytes(token.token_id)
        _emit_piece(ticket, sequence, stream.push(text_bytes, _record(token, ticket.token_bytes)))
    sequence.finish_reason = _finish_reason(sequence, is_end=is_end or stream.stopped)
    if sequence.finish_reason is not None:
        _emit_piece(ticket, sequence, stream.finish())
        ticket.emit(
            ChoiceFinished(
                choice=sequence.choice,
                finish_reason="stop" if stream.stopped else sequence.finish_reason,
                completion_tokens=len(sequence.tokens),
            )
        )
        ticket.unfinished -= 1


def _finish_reason(sequence: Sequence, *, is_end: bool) -> FinishReason | None:
    if is_end:
        return "stop"
    return "length" if len(sequence.tokens) == sequence.request.max_tokens else None


def _emit_piece(ticket: Ticket, sequence: Sequence, piece: Piece | None) -> None:
    if piece is not None:
        ticket.emit(
            GenerationDelta(choice=sequence.choice, text=piece.text, logprobs=piece.logprobs)
        )


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


def _stopping() -> Unavailable:
    return Unavailable("The engine is stopping. Try again in a moment.", code="engine_stopping")
