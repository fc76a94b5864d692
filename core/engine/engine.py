"""The engine: requests in, events out, one step of the device at a time.

`step()` is schedule → prepare → run → postprocess. One thread calls it; `submit` and `cancel` may
be called from any thread.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from core.busy_file import BusyFile
from core.engine.device.runner import Runner
from core.engine.device.sampler import sample
from core.engine.metrics import EngineMetrics
from core.engine.policy.request import AnyRequest, AnySequence
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Step
from core.engine.results import TextResults, Written
from core.engine.text.answers import AnyAnswer, Item
from core.errors import InvalidRequest, TunesmithError, Unavailable

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Without work, before the cores are left to others: one request may soon follow another."""

Emit = Callable[[Item], None]
"""Receives the items of one request in order. Called on the engine's thread; must not block."""


Outcomes = Sequence[tuple[AnySequence, Any]]
"""The results of one step: a SampledToken per generating sequence, a TextResult per text."""


@dataclass(eq=False)
class Ticket:
    """A request in flight, from `submit` to its last event; the handle for `cancel`."""

    request: AnyRequest
    answer: AnyAnswer
    emit: Emit
    unfinished: int
    arrived: float = field(default_factory=perf_counter)
    has_begun: bool = False


class Engine:
    """Owns the scheduler, the runner and the tickets of all requests in flight."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        metrics: EngineMetrics,
        busy_file: BusyFile | None = None,
    ) -> None:
        """`busy_file` is marked while there is work."""
        self.scheduler = scheduler
        self.runner = runner
        self.metrics = metrics
        self._busy_file = busy_file
        self._tickets: dict[AnyRequest, Ticket] = {}
        self._changed = threading.Condition()
        self._is_draining = False
        self._is_stopping = False

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight."""
        return not self._tickets

    def sequences(self) -> tuple[int, int]:
        """Return the numbers of running and of waiting sequences of live requests."""
        with self._changed:
            return self.scheduler.live_running, self.scheduler.waiting_of(False)

    def submit(self, request: AnyRequest, answer: AnyAnswer, emit: Emit) -> Ticket:
        """Queue a request; Unavailable `queue_full` or `engine_stopping`."""
        with self._changed:
            if self._is_draining:
                raise _stopping()
            if not self.scheduler.can_add(request.is_background):
                self.metrics.requests.labels("refused").inc()
                waiting = self.scheduler.waiting_of(request.is_background)
                raise Unavailable(
                    f"The engine's queue is full: {waiting} sequences are waiting. "
                    "Try again in a few seconds.",
                    code="queue_full",
                )
            sequences = self.scheduler.add(request)
            ticket = Ticket(request, answer, emit, unfinished=len(sequences))
            self._tickets[request] = ticket
            self._changed.notify()
            return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Cancel a request in any state; its rows leave the device at the next step."""
        with self._changed:
            if ticket.request in self._tickets:
                self.metrics.requests.labels("cancelled").inc()
            self._end(ticket)
            self._changed.notify()

    def run(self) -> None:
        """Run steps until `stop`; then fail the remaining requests."""
        while not self._is_stopping:
            if not self.step():
                self._wait_for_work()
        with self._changed:
            for ticket in list(self._tickets.values()):
                self._fail(ticket, _stopping())

    def _wait_for_work(self) -> None:
        with self._changed:
            if self._busy_file is None:
                self._changed.wait_for(self._has_work)
                return
            if not self._changed.wait_for(self._has_work, IDLE_SECONDS):
                self._busy_file.unmark()
                self._changed.wait_for(self._has_work)
        self._busy_file.mark()

    def drain(self) -> None:
        """Reject new requests; those in flight continue."""
        with self._changed:
            self._is_draining = True

    def stop(self) -> None:
        """Stop the engine and fail the requests in flight."""
        with self._changed:
            self._is_draining = self._is_stopping = True
            self._changed.notify()

    def step(self) -> bool:
        """Run one step of the device; return False if there was nothing to do."""
        with self._changed:
            self._drop_ended_sequences()
            step = self.scheduler.schedule()
            in_use = {lane.base for lane in self.scheduler.lanes if lane.running}
        if step is None:
            return False
        began = perf_counter()
        try:
            failures = self.runner.prepare(step, in_use)
            self._fail_sequences(failures)
            step = self._of_those_left(step)
            tokens = self._run(step) if step.chunks else ()
        except Exception as error:
            self._fail_step(step, error)
        else:
            self._postprocess(step, tokens, perf_counter() - began)
        with self._changed:
            for base in self.runner.take_unloaded():
                self.scheduler.drop(base)
        return True

    def _run(self, step: Step) -> Outcomes:
        with self.metrics.step_seconds.time():
            results = self.runner.run(step)
        self.metrics.read_tokens.inc(sum(chunk.end - chunk.start for chunk in step.chunks))
        match results:
            case Written(sequences, logits_SV):
                for sequence, first, scores in results.prompt_scores:
                    sequence.note_scores(first, scores)
                self.metrics.written_tokens.inc(len(sequences))
                return list(zip(sequences, sample(logits_SV, sequences), strict=True))
            case TextResults(sequences, of_texts):
                return list(zip(sequences, of_texts, strict=True))

    def _has_work(self) -> bool:
        return self._is_stopping or bool(self.scheduler.waiting or self.scheduler.running)

    def _postprocess(self, step: Step, outcomes: Outcomes, seconds: float) -> None:
        """Apply the new tokens or scores, emit events and drop finished sequences."""
        with self._changed:
            self.scheduler.advance(step, seconds)
            for sequence, outcome in outcomes:
                ticket = self._tickets.get(sequence.request)
                if ticket is not None:
                    if not ticket.has_begun:
                        ticket.has_begun = True
                        waited = perf_counter() - ticket.arrived
                        self.metrics.first_token_seconds.observe(waited)
                    try:
                        for item in ticket.answer.take(sequence, outcome):
                            ticket.emit(item)
                    except Exception as error:
                        self._fail(ticket, _told(error, "The output of a model failed to parse."))
                        continue
                    if sequence.matcher is not None and sequence.matcher.error:
                        self._fail(ticket, _decoding_failed(sequence, sequence.matcher.error))
                        continue
                    ticket.unfinished -= sequence.is_finished
                    if ticket.unfinished == 0:
                        self.metrics.requests.labels("finished").inc()
                        self._end(ticket)
            self._drop_ended_sequences()

    def _drop_ended_sequences(self) -> None:
        """Remove finished, failed and cancelled sequences."""
        for sequence in self.scheduler.running_sequences():
            if sequence.is_finished or sequence.request not in self._tickets:
                self.scheduler.remove(sequence)

    def _of_those_left(self, step: Step) -> Step:
        """Return the step without the sequences that ended during its preparation.

        A base takes seconds to load. Ended sequences have lost their blocks, and running them
        would fail the others.
        """
        with self._changed:
            ended = {
                chunk.sequence
                for chunk in step.chunks
                if chunk.sequence.request not in self._tickets
            }
        return step.without(ended)

    def _fail_step(self, step: Step, error: Exception) -> None:
        told = _told(error, f"A step of {len(step.chunks)} sequences failed.")
        self._fail_sequences({chunk.sequence: told for chunk in step.chunks})

    def _fail_sequences(self, failures: Mapping[AnySequence, TunesmithError]) -> None:
        with self._changed:
            for sequence, error in failures.items():
                ticket = self._tickets.get(sequence.request)
                if ticket is not None:
                    self._fail(ticket, error)
            self._drop_ended_sequences()

    def _fail(self, ticket: Ticket, error: TunesmithError) -> None:
        self.metrics.requests.labels("failed").inc()
        self._end(ticket)
        ticket.emit(error)

    def _end(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.request, None)
        self.scheduler.withdraw(ticket.request)


def _told(error: Exception, what: str) -> TunesmithError:
    """Return the error for the caller; log an unexpected one, whose details stay private."""
    if isinstance(error, TunesmithError):
        return error
    logger.error(what, exc_info=error)
    return Unavailable(
        "The engine failed while computing this answer. See its log.",
        code="engine_failed",
    )


def _decoding_failed(sequence: AnySequence, error: str) -> InvalidRequest:
    param = sequence.request.sampling.structured_output.param
    return InvalidRequest(
        f"Constrained decoding failed for `{param}`: {error[:500]}. Simplify it.",
        param=param,
        code="form_too_complex",
    )


def _stopping() -> Unavailable:
    return Unavailable("The engine is stopping. Try again in a moment.", code="engine_stopping")
