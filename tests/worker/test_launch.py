"""Children: what a preloaded process can do, and how it ends."""

import signal
from pathlib import Path

import psutil
import pytest

from core.spec.events import DatasetValidated, RunFailed, RunFinished, run_event_adapter
from core.spec.job import JobSpec
from core.spec.run_request import RunRequest, archive_of
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from tests.worker.workshop import ROW, TINY
from worker.launch import Child, launch, warm_up


@pytest.fixture
def run_request(tmp_path: Path) -> RunRequest:
    workspace = Workspace(folder=tmp_path)
    workspace.train_file.write_text("".join(ROW % number for number in range(4)))
    return RunRequest(
        JobSpec(base=TINY, training=TrainingSpec(epochs=1), seed=1), workspace, threads=2
    )


def all_events(child: Child) -> list[object]:
    events = []
    while True:
        try:
            events.append(run_event_adapter.validate_json(child.events.recv_bytes()))
        except EOFError:
            return events


def test_child_of_the_preloaded_server_trains_on_two_threads(run_request: RunRequest) -> None:
    """A thread pool that was used before the fork would hang here."""
    child = launch(run_request)
    events = all_events(child)
    assert child.wait() == 0
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert archive_of(finished.folder).stat().st_size > 0


def test_killed_child_says_how_it_ended(run_request: RunRequest) -> None:
    child = launch(run_request)
    assert child.events.recv_bytes()
    child.kill()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not psutil.pid_exists(child.process.pid or 0)
    child.kill()  # of one that is gone: nothing happens


def test_child_asked_to_stop_ends_without_a_last_event(run_request: RunRequest) -> None:
    spec = run_request.spec.model_copy(update={"training": TrainingSpec(epochs=100)})
    child = launch(RunRequest(spec, run_request.workspace, threads=1))
    while not isinstance(
        run_event_adapter.validate_json(child.events.recv_bytes()), DatasetValidated
    ):
        pass
    child.ask_to_stop()
    assert not any(isinstance(event, RunFinished) for event in all_events(child))
    assert child.wait() == 0


def test_unexpected_error_of_the_recipe_is_told(run_request: RunRequest) -> None:
    run_request.workspace.train_file.unlink()
    child = launch(run_request)
    last = all_events(child)[-1]
    child.wait()
    assert isinstance(last, RunFailed)
    assert last.code == "internal_error"
    assert "in load_rows" in child.log_tail()


def test_warm_up_names_the_device() -> None:
    assert warm_up()
