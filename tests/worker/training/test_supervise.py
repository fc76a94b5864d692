"""Reading the pipe: what is batched, what is not, and how a silent or torn end is met."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from core.spec.events import PhaseStarted, ResumeStateSaved, RunEvent, RunFailed, StepDone
from worker.training.supervise import supervise

PHASE = PhaseStarted(phase="training")
SAVED = ResumeStateSaved(step=1, folder=Path("resume/step-1"))
FAILURE = RunFailed(code="loss_nonfinite", message="The loss is not finite.")


def never() -> None:
    """The grace period of a child that nobody asks to stop."""


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        total_steps=9,
        epoch=1,
        loss=1.0,
        accuracy=0.5,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens=10,
        targets=5,
        seconds=0.1,
    )


@dataclass
class ScriptedChild:
    """A child at the seam of the pipe: it says what the test writes."""

    events: Connection
    mouth: Connection
    heard: list[str] = field(default_factory=list)

    def say(self, *events: RunEvent) -> None:
        for event in events:
            self.mouth.send_bytes(event.model_dump_json().encode())

    def ask_to_stop(self) -> None:
        self.heard.append("stop")

    def kill(self) -> None:
        self.heard.append("kill")
        if not self.mouth.closed:
            self.mouth.close()

    def wait(self) -> int:
        return 7


class Notes:
    """A record that only remembers."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, event: RunEvent) -> None:
        self.written.append(event)

    def write_steps(self, steps: Sequence[StepDone]) -> None:
        self.written.append([step.step for step in steps])


@pytest.fixture
def child() -> ScriptedChild:
    return ScriptedChild(*Pipe(duplex=False))


def test_events_keep_their_order_and_quick_steps_share_a_transaction(child: ScriptedChild) -> None:
    child.say(PHASE, *(step(n) for n in range(1, 6)), FAILURE)
    child.mouth.close()
    notes = Notes()
    assert supervise(child, notes, never) == 7  # type: ignore[arg-type]
    assert notes.written == [PHASE, [1], [2, 3, 4, 5], FAILURE]


def test_steps_before_a_sudden_end_are_kept(child: ScriptedChild) -> None:
    child.say(step(1), step(2))
    child.mouth.close()
    notes = Notes()
    supervise(child, notes, never)  # type: ignore[arg-type]
    assert notes.written == [[1], [2]]


def test_message_torn_by_the_death_of_the_child_ends_the_stream(child: ScriptedChild) -> None:
    child.say(PHASE)
    os.write(child.mouth.fileno(), (100).to_bytes(4, "big") + b'{"type": "st')
    child.mouth.close()
    notes = Notes()
    supervise(child, notes, never)  # type: ignore[arg-type]
    assert notes.written == [PHASE]


def test_child_that_does_not_stop_is_killed(child: ScriptedChild) -> None:
    supervise(child, Notes(), lambda: 0.0)  # type: ignore[arg-type]
    assert child.heard == ["stop", "kill"]


def test_a_shorter_grace_period_replaces_a_longer_one(child: ScriptedChild) -> None:
    """A pause was asked for; then the worker is told to end."""
    grace_periods = chain([600.0, 600.0], repeat(0.0))
    supervise(child, Notes(), lambda: next(grace_periods))  # type: ignore[arg-type]
    assert child.heard == ["stop", "stop", "kill"]


def test_child_that_was_asked_to_stop_is_heard_to_its_end(child: ScriptedChild) -> None:
    child.say(step(1), SAVED)
    child.mouth.close()
    notes = Notes()
    supervise(child, notes, lambda: 600.0)  # type: ignore[arg-type]
    assert notes.written == [[1], SAVED]
    assert child.heard == ["stop"]
