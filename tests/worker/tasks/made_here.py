"""Tasks that make and export models, whose children do the whole work inside this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from pydantic import BaseModel

from core.artifacts.archive import pack
from core.errors import TunesmithError
from core.exports.steps import run_step
from core.made_models.run import make_bundle
from core.records.projects import DEFAULT_PROJECT
from core.records.tasks import find_task
from core.spec.events import RunFailed
from core.spec.export_steps import ExportStep, StepResult
from core.spec.ids import TaskId
from core.spec.making import MadeBundle, MakingRequest
from core.spec.run_request import archive_of
from core.tasks.kinds import Queue
from tests.worker.workshop import Workshop
from worker.context import Worker
from worker.tasks.desk import TaskDesk

Result = TypeVar("Result", bound=BaseModel)


@contextmanager
def children_here() -> Iterator[None]:
    with (
        patch("worker.tasks.making.ask_for_bundle", _bundle_here),
        patch("worker.exports.building.ask_for_export_step", _step_here),
    ):
        yield


def run_waiting(workshop: Workshop) -> None:
    """Run all waiting tasks of both queues."""
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    for queue in Queue:
        TaskDesk(worker, queue).run_waiting()


def result_of(workshop: Workshop, kind: str, task_id: TaskId, result: type[Result]) -> Result:
    with workshop.database.reading() as session:
        task = find_task(session, DEFAULT_PROJECT, kind, task_id)
    assert task is not None and task.error is None, task and task.error
    return result.model_validate(task.result)


def _bundle_here(request: MakingRequest, should_stop: object) -> MadeBundle | RunFailed:
    try:
        found = make_bundle(request)
    except TunesmithError as error:
        return RunFailed(code=error.code, message=error.message, param=error.param)
    pack(request.bundle_folder, archive_of(request.bundle_folder))
    return found


def _step_here(
    step: ExportStep, threads: int, log_file: Path, should_stop: object
) -> StepResult | RunFailed:
    try:
        return run_step(step)
    except TunesmithError as error:
        return RunFailed(code=error.code, message=error.message, param=error.param)
