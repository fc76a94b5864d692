"""A run without a model, in a thread: what `worker.launch` gives, in milliseconds.

It counts steps, saves what it has counted when it is asked to stop, and goes on from there.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core.artifacts.archive import pack, pack_state
from core.artifacts.manifest import ADAPTER_FILE, write_manifest
from core.artifacts.publish import published_folder
from core.spec.events import (
    DatasetValidated,
    ResumeStateSaved,
    RunEvent,
    RunFinished,
    RungReached,
    RunResumed,
    StepDone,
)
from core.spec.held_out import HeldOutFacts, Question
from core.spec.parity import ParityReference
from core.spec.run_request import RunRequest, archive_of
from worker.training.publish import METRICS_FILE

SECONDS_PER_STEP = 0.01


@dataclass
class Simulation:
    """How children behave and what they were asked; `launch` replaces the real one."""

    total_steps: int = 10**9
    hears_stop: bool = True
    reference: ParityReference | None = None
    while_stopping: Callable[[], None] = lambda: None
    loss_of: Callable[[RunRequest], float] = lambda request: 1.0
    """On held-out rows, at any step."""
    questions_of: Callable[[RunRequest], tuple[Question, ...]] = lambda request: ()
    """What a model is asked at a rung, and at the end."""
    requests: list[RunRequest] = field(default_factory=list)
    started_at: list[int] = field(default_factory=list)

    def launch(self, request: RunRequest) -> "SimulatedChild":
        self.requests.append(request)
        child = SimulatedChild(self, request, *Pipe(duplex=False))
        child.thread.start()
        return child


class SimulatedChild:
    def __init__(
        self, simulation: Simulation, request: RunRequest, events: Connection, mouth: Connection
    ) -> None:
        self.events = events
        self.thread = threading.Thread(target=self._run)
        self._simulation = simulation
        self._order = request
        self._mouth = mouth
        self._stop = threading.Event()
        self._killed = threading.Event()

    def ask_to_stop(self) -> None:
        self._stop.set()

    def kill(self) -> None:
        self._killed.set()

    def wait(self) -> int:
        self.thread.join()
        return -9 if self._killed.is_set() else 0

    def log_tail(self) -> str:
        return ""

    def _run(self) -> None:
        try:
            self._train()
        finally:
            self._mouth.close()

    def _train(self) -> None:
        total_steps = self._simulation.total_steps
        step = self._saved_step()
        self._simulation.started_at.append(step)
        self._say(
            DatasetValidated(
                rows=8, validation_rows=0, tokens=80, targets=40, total_steps=total_steps
            )
        )
        if step:
            self._say(RunResumed(step=step))
        share = self._order.pause_at_share
        rung = total_steps if share is None else math.ceil(share * total_steps)
        while step < total_steps:
            if self._killed.is_set():
                return
            if self._stop.is_set() and self._simulation.hears_stop:
                self._simulation.while_stopping()
                self._save(step)
                return
            if share is not None and step == rung:
                self._save(step)
                self._say(self._rung_reached(step, share))
                return
            time.sleep(SECONDS_PER_STEP)
            step += 1
            self._say(_step_done(step, total_steps))
        folder = self._order.workspace.bundle_folder
        write_bundle(folder, self._order)
        reference = self._simulation.reference
        questions = self._simulation.questions_of(self._order)
        self._say(
            RunFinished(
                folder=folder,
                weights_sha256="0" * 64,
                trained_tokens=80,
                step=total_steps,
                reference=reference,
                validation_loss=self._simulation.loss_of(self._order),
                validation_accuracy=0.5,
                held_out=HeldOutFacts(questions=questions) if questions else None,
            )
        )

    def _rung_reached(self, step: int, share: float) -> RungReached:
        loss = self._simulation.loss_of(self._order)
        told = RungReached(step=step, share=share, loss=loss, accuracy=0.5)
        if not self._order.asks_at_rung:
            return told
        folder = self._order.workspace.rung_folder
        write_bundle(folder, self._order)
        questions = self._simulation.questions_of(self._order)
        return told.model_copy(update={"folder": folder, "questions": questions})

    def _say(self, event: RunEvent) -> None:
        self._mouth.send_bytes(event.model_dump_json().encode())

    def _saved_step(self) -> int:
        states = (self._order.workspace.folder / "resume").glob("step-*/step.json")
        return max((int(path.read_text()) for path in states), default=0)

    def _save(self, step: int) -> None:
        folder = self._order.workspace.resume_folder(step)
        with published_folder(folder) as partial:
            (partial / "step.json").write_text(str(step))
        pack_state(folder, archive_of(folder))
        self._say(ResumeStateSaved(step=step, folder=folder))


def write_bundle(folder: Path, request: RunRequest) -> None:
    """A bundle that can be unpacked, and its archive."""
    with published_folder(folder) as partial:
        (partial / METRICS_FILE).write_text("step,train_loss\n")
        save_file({"a": np.zeros(2, np.float32)}, partial / ADAPTER_FILE)
        write_manifest(partial, request.spec)
    pack(folder, archive_of(folder))


def _step_done(step: int, total_steps: int) -> StepDone:
    return StepDone(
        step=step,
        total_steps=total_steps,
        epoch=1,
        loss=1.0,
        accuracy=0.5,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens=10,
        targets=5,
        seconds=SECONDS_PER_STEP,
    )
