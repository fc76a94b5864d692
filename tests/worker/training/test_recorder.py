"""Rows out of scripted events, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.jobs.state import JobStatus
from core.spec.events import (
    Evaluated,
    RunFailed,
    RunRestarted,
    RunResumed,
)
from core.spec.job import JobSpec
from core.spec.training import TrainingSpec
from tests.worker.training.recording import (
    VALIDATED,
    recording,
    step,
)
from tests.worker.workshop import TINY, Workshop, make_workshop
from worker.outages.full_disk import DISK_FULL
from worker.training.recorder import Recorder


@pytest.fixture
def workshop(tmp_path: Path, database_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, database_url)
    yield workshop
    workshop.database.close()


def test_validated_job_passes_through_queued_to_running_under_one_claim(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    job = workshop.job(job_id)
    assert (job.status, job.total_steps, job.claimed_by) == (JobStatus.RUNNING, 4, "worker-here")
    assert job.started_at is not None
    assert workshop.messages(job_id)[-3:] == [
        "Files validated, moving job to queued state",
        "8 training rows with 80 tokens per epoch; 2 validation rows.",
        "Fine-tuning job started",
    ]


def test_steps_become_metrics_events_and_an_estimate(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write_steps([step(1, seconds=100), step(2, seconds=100)])
    job = workshop.job(job_id)
    assert job.step == 2
    assert job.estimated_finish is not None and job.started_at is not None
    assert job.estimated_finish - job.started_at == pytest.approx(200, abs=20)
    event = workshop.events(job_id)[-1]
    assert (event.type, event.message) == ("metrics", "Step 2/4: training loss=0.83")
    assert event.data is not None
    assert event.data["train_mean_token_accuracy"] == 0.5
    assert event.data["total_steps"] == 4


def test_estimate_of_a_resumed_run_counts_its_own_steps(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write_steps([step(3, seconds=100)])
    job = workshop.job(job_id)
    assert job.estimated_finish is not None and job.started_at is not None
    assert job.estimated_finish - job.started_at == pytest.approx(100, abs=20)


def test_resumed_run_says_from_which_step(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write(RunResumed(step=2))
    assert workshop.job(job_id).step == 2
    assert workshop.messages(job_id)[-1] == "Resumed from step 2."


def test_run_that_cannot_use_its_state_starts_again_and_says_so(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write_steps([step(3)])
    recorder.write(RunRestarted(step=3))
    assert workshop.job(job_id).step == 0
    event = workshop.events(job_id)[-1]
    assert event.level == "warn"
    assert event.message.startswith("The state saved after step 3 is not used, because ")


def test_evaluation_is_an_event_of_its_own(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write(Evaluated(step=2, loss=0.7, accuracy=0.6))
    event = workshop.events(job_id)[-1]
    assert event.message == "Step 2/4: full validation loss=0.70"
    assert event.data is not None and event.data["full_valid_mean_token_accuracy"] == 0.6


def test_failure_of_the_run_is_the_error_of_the_job(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    failure = RunFailed(code="invalid_training_file", message="Line 3: …", param="training_file")
    recorder.write(failure)
    job = workshop.job(job_id)
    assert job.status == JobStatus.FAILED
    assert job.error == failure.model_dump(exclude={"type"})
    assert recorder.is_complete


def test_full_disk_of_the_child_pauses_the_job(
    workshop: Workshop, job_id: str, recorder: Recorder
) -> None:
    recorder.write(VALIDATED)
    recorder.write(RunFailed(code=DISK_FULL, message="No space left on device"))
    assert recorder.is_complete
    job = workshop.job(job_id)
    assert (job.status, job.attempts, job.error) == (JobStatus.PAUSED, 0, None)
    event = workshop.events(job_id)[-1]
    assert event.level == "error"
    assert event.message.startswith("A disk is full. Free some space, then resume the job.")


@pytest.mark.parametrize(
    ("rate", "multiplier", "shown"),
    [
        ("auto", 1.0, (3e-3, 1.0)),
        (1e-3, "auto", (1e-3, 0.4)),
        # of a job that was stored before bases had rates nothing changes
        (1e-3, None, (1e-3, None)),
    ],
)
def test_what_the_run_makes_of_an_open_learning_rate_is_written_to_the_job(
    workshop: Workshop, rate: Any, multiplier: Any, shown: tuple[float, float | None]
) -> None:
    spec = JobSpec(
        base=TINY,
        training=TrainingSpec(learning_rate=rate),
        learning_rate_multiplier=multiplier,
        seed=1,
    )
    job_id = workshop.create(spec, workshop.upload("{}"))
    settled = {"learning_rate": shown[0], "learning_rate_multiplier": shown[1]}
    recording(workshop).write(VALIDATED.model_copy(update=settled))
    job = workshop.job(job_id)
    found = JobSpec.model_validate(job.spec)
    assert (found.training.learning_rate, found.learning_rate_multiplier) == shown
    left = {"training": spec.training, "learning_rate_multiplier": multiplier}
    assert found.model_copy(update=left) == spec
    assert f"learning rate {shown[0]:g}" in workshop.messages(job_id)[-2]


def test_a_child_that_does_not_tell_its_rate_leaves_it_open(workshop: Workshop) -> None:
    spec = JobSpec(base=TINY, learning_rate_multiplier=1.0, seed=1)
    job_id = workshop.create(spec, workshop.upload("{}"))
    recording(workshop).write(VALIDATED)
    assert JobSpec.model_validate(workshop.job(job_id).spec) == spec
