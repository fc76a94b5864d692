"""Pausing, stopping and going on: a real worker, with simulated children."""

import errno
import os
from pathlib import Path

import pytest

from core.jobs.state import JobStatus
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.resume_states import states_of
from core.records.tables import TunedModel
from core.storage.blobs import Blob
from tests.worker.simulated_child import Simulation
from tests.worker.workshop import Workshop, wait_until, worker_here
from worker.training import attempt as train_module


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation()
    monkeypatch.setattr(train_module, "launch", simulation.launch)
    return simulation


def steps_told(workshop: Workshop, job_id: str) -> list[int]:
    events = [event.data for event in workshop.events(job_id) if event.type == "metrics"]
    return [data["step"] for data in events if data]


def wait_for(workshop: Workshop, job_id: str, status: JobStatus) -> None:
    wait_until(lambda: workshop.job(job_id).status == status, f"{job_id} is {status}")


def paused_in_a_run(workshop: Workshop) -> str:
    """A job that was paused while it trained."""
    job_id = workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        workshop.pause(job_id)
        wait_for(workshop, job_id, JobStatus.PAUSED)
    return job_id


def test_paused_run_saves_its_state_and_goes_on_from_there(
    workshop: Workshop, children: Simulation
) -> None:
    job_id = paused_in_a_run(workshop)
    job = workshop.job(job_id)
    assert (job.attempts, job.claimed_by, job.estimated_finish) == (0, None, None)
    (state,) = states_of(job)
    assert job.step == state.step == steps_told(workshop, job_id)[-1]
    assert workshop.messages(job_id)[-1] == (
        f"The run was stopped. The job is paused after step {state.step}."
    )
    assert list((workshop.folder / "work" / job_id).iterdir()) == []

    children.total_steps = state.step + 5
    workshop.resume(job_id)
    with worker_here(workshop):
        workshop.wait_for_end(job_id)
    assert workshop.job(job_id).status == JobStatus.SUCCEEDED
    assert children.started_at == [0, state.step]
    assert steps_told(workshop, job_id) == list(range(1, children.total_steps + 1))


def test_worker_goes_on_with_the_next_job_after_a_pause(
    workshop: Workshop, children: Simulation
) -> None:
    first, second = workshop.submit(), workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(first)
        workshop.pause(first)
        workshop.wait_for_steps(second)
    assert workshop.job(first).status == JobStatus.PAUSED


def test_stopping_worker_saves_the_state_and_another_goes_on(
    workshop: Workshop, children: Simulation
) -> None:
    job_id = workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
    job = workshop.job(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.step >= 1
    assert workshop.messages(job_id)[-1] == (
        f"The worker was stopped. The job will resume from step {job.step}."
    )
    with worker_here(workshop):
        wait_until(lambda: len(children.started_at) == 2, "another attempt begins")
    assert children.started_at == [0, job.step]


def test_worker_that_stops_during_a_pause_parks_the_job(
    workshop: Workshop, children: Simulation
) -> None:
    job_id = workshop.submit()
    with worker_here(workshop) as worker:
        workshop.wait_for_steps(job_id)
        children.while_stopping = worker.stopping.set
        workshop.pause(job_id)
        wait_for(workshop, job_id, JobStatus.PAUSED)
    assert "The worker was stopped. The job is paused" in workshop.messages(job_id)[-1]
    assert len(states_of(workshop.job(job_id))) == 1


def test_child_that_does_not_stop_for_a_pause_is_killed_and_the_job_parked(
    workshop: Workshop, children: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "PAUSE_SECONDS", 0.2)
    children.hears_stop = False
    job_id = paused_in_a_run(workshop)
    job = workshop.job(job_id)
    assert (job.step, job.attempts, job.resume_states) == (0, 0, None)
    workshop.resume(job_id)
    assert workshop.job(job_id).status == JobStatus.QUEUED


def test_withdrawn_pause_lets_the_job_go_on(workshop: Workshop, children: Simulation) -> None:
    job_id = workshop.submit()
    children.while_stopping = lambda: workshop.resume(job_id)
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        workshop.pause(job_id)
        wait_until(lambda: len(children.started_at) == 2, "the job runs again")
        children.while_stopping = lambda: None
        assert workshop.job(job_id).paused_at is None
    assert children.started_at[1] >= 1
    assert "The request for a pause was withdrawn." in workshop.messages(job_id)


def test_job_that_is_cancelled_while_it_pauses_stays_cancelled(
    workshop: Workshop, children: Simulation
) -> None:
    job_id = workshop.submit()
    children.while_stopping = lambda: workshop.cancel(job_id)
    with worker_here(workshop):
        workshop.wait_for_steps(job_id)
        workshop.pause(job_id)
        wait_for(workshop, job_id, JobStatus.CANCELLED)
    assert workshop.messages(job_id)[-1] == "The job was cancelled."
    assert workshop.blobs("resume") == set()
    assert list((workshop.folder / "work" / job_id).iterdir()) == []


@pytest.mark.parametrize("kind", ["resume", "bundles"])
def test_full_disk_pauses_the_job_and_tears_nothing(
    workshop: Workshop, children: Simulation, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    children.total_steps = 30
    job_id = workshop.submit()
    before = workshop.blobs("")
    write_file = workshop.store.write_file

    def full(key: str, path: Path) -> Blob:
        if key.startswith(kind):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_file(key, path)

    with monkeypatch.context() as patch, worker_here(workshop):
        patch.setattr(workshop.store, "write_file", full)
        if kind == "resume":
            workshop.wait_for_steps(job_id)
            workshop.pause(job_id)
        wait_for(workshop, job_id, JobStatus.PAUSED)
    event = workshop.events(job_id)[-1]
    assert event.level == "error"
    assert event.message.startswith("A disk is full. Free some space, then resume the job. (OSErr")
    assert workshop.job(job_id).attempts == 0
    assert workshop.blobs("") == before
    workshop.resume(job_id)
    with worker_here(workshop):
        assert workshop.wait_for_end(job_id).status == JobStatus.SUCCEEDED


def tuned_model(workshop: Workshop, children: Simulation) -> TunedModel:
    children.total_steps = 2
    job_id = workshop.submit()
    with worker_here(workshop):
        name = workshop.wait_for_end(job_id).fine_tuned_model
    with workshop.database.reading() as session:
        return get_owned(session, TunedModel, DEFAULT_PROJECT, name or "")


def test_parent_is_unpacked_for_the_child(
    workshop: Workshop, children: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tuned_model(workshop, children)
    parents: list[set[str]] = []
    launch = children.launch

    def record(request):  # type: ignore[no-untyped-def]
        parents.append({path.name for path in request.workspace.parent_folder.iterdir()})
        return launch(request)

    monkeypatch.setattr(train_module, "launch", record)
    job_id = workshop.submit(parent=model)
    with worker_here(workshop):
        assert workshop.wait_for_end(job_id).status == JobStatus.SUCCEEDED
    assert parents == [{"adapter_model.safetensors", "manifest.json", "metrics.csv"}]


@pytest.mark.parametrize(("damage", "code"), [("gone", "not_found"), ("other", "artifact_corrupt")])
def test_parent_that_cannot_be_used_fails_the_job(
    workshop: Workshop, children: Simulation, damage: str, code: str
) -> None:
    model = tuned_model(workshop, children)
    workshop.store.delete(model.bundle_key)
    if damage == "other":
        workshop.store.write(model.bundle_key, [b"another archive"])
    job_id = workshop.submit(parent=model)
    with worker_here(workshop):
        job = workshop.wait_for_end(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, code)
    assert len(children.requests) == 1
