"""A claimed job from its files to its end, with real children and the real recipe."""

import csv
from pathlib import Path

import pytest

from core.jobs.state import JobStatus
from core.records import models
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.resume_states import states_of
from core.records.tables import File, TunedModel
from tests.worker.workshop import Workshop, wait_until, worker_here
from worker.context import Worker
from worker.process.app import device_work
from worker.training.attempt import train

STEPS = 8


@pytest.fixture
def finished(workshop: Workshop) -> tuple[Workshop, str]:
    """A job of two epochs of four steps, run to its end."""
    job_id = workshop.submit(epochs=2)
    with worker_here(workshop):
        workshop.wait_for_end(job_id)
    return workshop, job_id


def test_job_runs_from_claim_to_tuned_model(finished: tuple[Workshop, str]) -> None:
    workshop, job_id = finished
    job = workshop.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert (job.step, job.total_steps, job.attempts) == (STEPS, STEPS, 1)
    assert job.trained_tokens and job.started_at and job.finished_at
    assert job.estimated_finish is None and job.claimed_by is None

    messages = workshop.messages(job_id)
    order = [
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        next(message for message in messages if message.startswith("Step 1/8: training loss=")),
        next(message for message in messages if message.startswith("Checkpoint created at step 4")),
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert sorted(order, key=messages.index) == order
    assert messages[-1] == order[-1]

    metrics = [event.data for event in workshop.events(job_id) if event.type == "metrics"]
    assert [data["step"] for data in metrics if data] == list(range(1, STEPS + 1))
    assert all(data and data["train_loss"] > 0 for data in metrics)

    with workshop.database.reading() as session:
        model = get_owned(session, TunedModel, DEFAULT_PROJECT, job.fine_tuned_model or "")
        checkpoints = models.list_checkpoints(session, job_id, after=None, limit=10).rows
        result = get_owned(session, File, DEFAULT_PROJECT, job.result_file or "")
    assert [checkpoint.step for checkpoint in checkpoints] == [8, 4]
    assert model.bundle_key == f"bundles/{job_id}/1/final.zip"
    assert workshop.blobs("bundles") == {
        f"bundles/{job_id}/1/{name}.zip" for name in ("step-4", "step-8", "final")
    }
    assert result.purpose == "fine-tune-results"
    rows = b"".join(workshop.store.read(result.blob_key)).decode().splitlines()
    assert [row["step"] for row in csv.DictReader(rows)] == [str(n) for n in range(1, STEPS + 1)]
    assert not (workshop.folder / "work" / job_id / "1").exists()


def test_row_that_cannot_be_trained_on_fails_the_job_with_its_line(workshop: Workshop) -> None:
    long_row = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant"' % (
        "a b " * 99
    )
    job_id = workshop.submit(content=long_row + ', "content": "c"}]}\n')
    with worker_here(workshop):
        job = workshop.wait_for_end(job_id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None and job.error["code"] == "invalid_training_file"
    assert "line 1" in job.error["message"].lower()
    assert workshop.events(job_id)[-1].level == "error"


def test_missing_file_fails_the_job_and_names_the_field(workshop: Workshop) -> None:
    job_id = workshop.submit()
    with workshop.database.writing() as session:
        session.delete(
            get_owned(session, File, DEFAULT_PROJECT, workshop.job(job_id).training_file)
        )
    with worker_here(workshop):
        job = workshop.wait_for_end(job_id)
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("file_not_found", "training_file")


def test_worker_goes_on_while_jobs_wait_and_takes_the_oldest_first(workshop: Workshop) -> None:
    first, second = workshop.submit(), workshop.submit()
    with worker_here(workshop):
        workshop.wait_for_end(second)
    ended = [workshop.job(job_id).finished_at or 0 for job_id in (first, second)]
    assert ended == sorted(ended)


def test_stopping_worker_gives_its_job_back_without_counting_an_attempt(
    workshop: Workshop,
) -> None:
    job_id = workshop.submit(epochs=50)
    with worker_here(workshop) as worker:
        workshop.wait_for_steps(job_id)
        worker.stopping.set()
        wait_until(lambda: workshop.job(job_id).claimed_by is None, "the claim is released")
    job = workshop.job(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.step == max((state.step for state in states_of(job)), default=0)
    assert list((workshop.folder / "work" / job_id).iterdir()) == []


def test_void_claim_changes_nothing_and_leaves_nothing(workshop: Workshop) -> None:
    job_id = workshop.submit()
    claim = workshop.claim()
    workshop.cancel(job_id)
    before = workshop.messages(job_id)
    with worker_here(workshop) as worker:
        train(worker, claim)
    assert workshop.job(job_id).status == JobStatus.CANCELLED
    assert workshop.messages(job_id) == before
    assert workshop.blobs("bundles") == set()
    assert not Path(workshop.folder / "work" / job_id / "1").exists()


def test_worker_that_stops_claims_nothing(workshop: Workshop) -> None:
    job_id = workshop.submit()
    with worker_here(workshop) as worker:
        workshop.wait_for_end(job_id)
        worker.stopping.set()
        waiting = workshop.submit()
        device_work(Worker(worker.settings, worker.database, worker.store, worker.stopping))()
    assert workshop.job(waiting).attempts == 0
