"""The engine: requests in, events out, one turn of the device at a time.

`step()` is schedule → run → postprocess. One thread calls it; requests come in and are
cancelled from any thread.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.engine.answers import AnyAnswer, Item
from core.engine.request import AnyRequest
from core.engine.runner import Runner
from core.engine.sampler import sample
from core.engine.scheduler import Decode, Group, Prefill, Scheduler, Score, Turn
from core.errors import TunesmithError, Unavailable

logger = logging.getLogger(__name__)

Emit = Callable[[Item], None]
"""Takes the items of one request in order; called on the engine's thread, must not block."""


Results = list[Any]
"""Of one turn, in the order of the group's sequences: SampledTokens, or a tuple of scores each."""


@dataclass(eq=False)
class Ticket:
    """A request inside the engine, from `submit` to its last event; the handle to cancel it."""

    request: AnyRequest
    answer: AnyAnswer
    emit: Emit
    unfinished: int


class Engine:
    """Owns scheduler, runner and the tickets of all requests in flight."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self._tickets: dict[AnyRequest, Ticket] = {}
        self._changed = threading.Condition()
        self._is_stopping = False

    def submit(self, request: AnyRequest, answer: AnyAnswer, emit: Emit) -> Ticket:
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
            ticket = Ticket(request, answer, emit, unfinished=len(sequences))
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
            results = self._run(turn)
        except Exception as error:
            self._fail_group(group, error)
        else:
            self._postprocess(group, results)
        return True

    def _run(self, turn: Turn) -> Results:
        match turn:
            case Prefill(group):
                return sample(self.runner.prefill(group), group.sequences)
            case Decode(group):
                return sample(self.runner.decode(group), group.sequences)
            case Score(group):
                return self.runner.score(group)

    def _has_work(self) -> bool:
        return self._is_stopping or bool(self.scheduler.waiting or self.scheduler.groups)

    def _postprocess(self, group: Group, results: Results) -> None:
        """Take the new tokens or scores, tell the callers and retire what has finished."""
        with self._changed:
            for sequence, result in zip(group.sequences, results, strict=True):
                ticket = self._tickets.get(sequence.request)
                if ticket is not None:
                    for item in ticket.answer.take(sequence, result):
                        ticket.emit(item)
                    ticket.unfinished -= sequence.is_finished
                    if ticket.unfinished == 0:
                        self._end(ticket)
            self._drop_ended_sequences()

    def _drop_ended_sequences(self) -> None:
        """Take finished, failed and cancelled sequences off the device."""
        for group in list(self.scheduler.groups):
            kept = [
                row
                for row, sequence in enumerate(group.sequences)
                if not sequence.is_finished and sequence.request in self._tickets
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


def _stopping() -> Unavailable:
    return Unavailable("The engine is stopping. Try again in a moment.", code="engine_stopping")
