"""Naps in a workshop: asked for, ended and looked at."""

from dataclasses import dataclass
from pathlib import Path

from core.jobs.broker import Broker
from core.records import tasks
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Task
from core.tasks.kinds import Work
from tests.worker.nap import NapRequest
from tests.worker.workshop import Workshop, wait_until


@dataclass(frozen=True)
class Naps:
    workshop: Workshop

    def ask(self, name: str = "nap", dream: str = "sheep") -> str:
        """Write a nap as the API would, without telling the broker; return its id."""
        payload = NapRequest(gate=str(self._gate(name)), log=str(self._log(name)), dream=dream)
        with self.workshop.database.writing() as session:
            ensure_project(session)
            task = tasks.create_task(session, DEFAULT_PROJECT, "nap", subject=name, payload=payload)
            return task.id

    def wake(self, task_id: str) -> None:
        Broker(self.workshop.broker_url).wake(Work("nap", task_id))

    def end(self, name: str = "nap") -> None:
        """Let all naps of this name end."""
        self._gate(name).touch()

    def starts(self, name: str = "nap") -> list[str]:
        """`<id> <token>` of every start."""
        log = self._log(name)
        return log.read_text().splitlines() if log.exists() else []

    def row(self, task_id: str) -> Task:
        with self.workshop.database.reading() as session:
            task = tasks.find_task(session, DEFAULT_PROJECT, "nap", task_id)
        assert task is not None
        return task

    def wait_for_start(self, name: str, count: int = 1) -> None:
        wait_until(lambda: len(self.starts(name)) >= count, f"{name} has started {count} times")

    def wait_for_end(self, task_id: str) -> Task:
        wait_until(lambda: self.row(task_id).finished_at is not None, f"{task_id} ends")
        return self.row(task_id)

    def _gate(self, name: str) -> Path:
        return self.workshop.folder / f"{name}.gate"

    def _log(self, name: str) -> Path:
        return self.workshop.folder / f"{name}.log"
