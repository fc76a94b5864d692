"""Rows and blobs out of scripted events, on both databases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.records import claims, models
from core.spec.base_model import BaseModelSpec
from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    Evaluated,
    RunFailed,
    RunFinished,
    RunRestarted,
    RunResumed,
    StepDone,
)
from core.spec.generation import TextPrompt
from core.spec.job import JobSpec
from core.spec.parity import Parity, ParityReference, ReplayedRow
from core.spec.training import TrainingSpec
from tests.worker.workshop import TINY, Workshop, make_workshop
from worker.disk import DISK_FULL
from worker.engines import EngineAddress
from worker.launch import archive_of
from worker.parity import ParityCheck
from worker.record import METRICS_FILE, CheckParity, Record
from worker.replay import Candidate
from worker.resume import ResumeStates

REFERENCE = ParityReference(
    precision="fp32",
    rows=(
        ReplayedRow(
            line=1,
            prompt=TextPrompt(text="a"),
            prompt_ids=(1,),
            answer=(2,),
            logprobs=(None, -1.0),
        ),
    ),
)
NO_ENGINE = ParityCheck(lambda base: None, lambda: False)
VALIDATED = DatasetValidated(rows=8, validation_rows=2, tokens=80, targets=40, total_steps=4)


@pytest.fixture
def workshop(tmp_path: Path, database_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, database_url)
    yield workshop
    workshop.database.close()


@pytest.fixture
def job_id(workshop: Workshop) -> str:
    return workshop.submit()


@pytest.fixture
def record(workshop: Workshop, job_id: str) -> Record:
    return recording(workshop)


def recording(workshop: Workshop, check_parity: CheckParity = NO_ENGINE) -> Record:
    """The record of an attempt that has claimed the oldest job."""
    parts = (workshop.database, workshop.store, workshop.claim())
    return Record(*parts, ResumeStates(*parts), check_parity)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = tmp_path / "bundles-of-the-child" / name
        folder.mkdir(parents=True)
        (folder / METRICS_FILE).write_text("step,train_loss\n")
        archive_of(folder).write_bytes(name.encode())
        return folder

    return make


def step(number: int, seconds: float = 1.0) -> StepDone:
    return StepDone(
        step=number,
        total_steps=4,
        epoch=1,
        loss=0.8311,
        accuracy=0.5,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens=10,
        targets=5,
        seconds=seconds,
    )


def checkpoint(number: int, folder: Path) -> CheckpointSaved:
    return CheckpointSaved(
        step=number,
        folder=folder,
        train_loss=0.9,
        train_accuracy=0.4,
        validation_loss=1.1,
        validation_accuracy=0.3,
    )


def finished(folder: Path) -> RunFinished:
    return RunFinished(folder=folder, weights_sha256="0" * 64, trained_tokens=9)


def test_validated_job_passes_through_queued_to_running_under_one_claim(
    workshop: Workshop, job_id: str, record: Record
) -> None:
    record.write(VALIDATED)
    job = workshop.job(job_id)
    assert (job.status, job.total_steps, job.claimed_by) == (JobStatus.RUNNING, 4, "worker-here")
    assert job.started_at is not None
    assert workshop.messages(job_id)[-3:] == [
        "Files validated, moving job to queued state",
        "8 rows with 80 tokens an epoch to train on; 2 rows to evaluate on.",
        "Fine-tuning job started",
    ]


def test_steps_become_metrics_events_and_an_estimate(
    workshop: Workshop, job_id: str, record: Record
) -> None:
    record.write(VALIDATED)
    record.write_steps([step(1, seconds=100), step(2, seconds=100)])
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
    workshop: Workshop, job_id: str, record: Record
) -> None:
    record.write(VALIDATED)
    record.write_steps([step(3, seconds=100)])
    job = workshop.job(job_id)
    assert job.estimated_finish is not None and job.started_at is not None
    assert job.estimated_finish - job.started_at == pytest.approx(100, abs=20)


def test_resumed_run_says_from_which_step(workshop: Workshop, job_id: str, record: Record) -> None:
    record.write(VALIDATED)
    record.write(RunResumed(step=2))
    assert workshop.job(job_id).step == 2
    assert workshop.messages(job_id)[-1] == "Resumed from step 2."


def test_run_that_cannot_use_its_state_starts_again_and_says_so(
    workshop: Workshop, job_id: str, record: Record
) -> None:
    record.write(VALIDATED)
    record.write_steps([step(3)])
    record.write(RunRestarted(step=3))
    assert workshop.job(job_id).step == 0
    event = workshop.events(job_id)[-1]
    assert event.level == "warn"
    assert event.message.startswith("The state saved after step 3 is not used: ")


def test_evaluation_is_an_event_of_its_own(workshop: Workshop, job_id: str, record: Record) -> None:
    record.write(VALIDATED)
    record.write(Evaluated(step=2, loss=0.7, accuracy=0.6))
    event = workshop.events(job_id)[-1]
    assert event.message == "Step 2/4: full validation loss=0.70"
    assert event.data is not None and event.data["full_valid_mean_token_accuracy"] == 0.6


def test_checkpoints_can_be_called_and_old_ones_make_room(
    workshop: Workshop, job_id: str, record: Record, make_bundle: Callable[[str], Path]
) -> None:
    record.write(VALIDATED)
    for number in (1, 2, 3, 4):
        record.write(checkpoint(number, make_bundle(f"step-{number}")))
    with workshop.database.reading() as session:
        kept = models.list_checkpoints(session, job_id, after=None, limit=9).rows
    assert [c.step for c in kept] == [4, 3, 2]
    assert kept[0].metrics["full_valid_loss"] == 1.1
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/step-{n}.zip" for n in (2, 3, 4)}


def test_archive_leaves_the_workspace_once_it_is_stored(
    record: Record, make_bundle: Callable[[str], Path]
) -> None:
    record.write(VALIDATED)
    folder = make_bundle("step-1")
    record.write(checkpoint(1, folder))
    assert not archive_of(folder).exists()
    assert folder.exists()


def test_failure_of_the_run_is_the_error_of_the_job(
    workshop: Workshop, job_id: str, record: Record
) -> None:
    failure = RunFailed(code="invalid_training_file", message="Line 3: …", param="training_file")
    record.write(failure)
    job = workshop.job(job_id)
    assert job.status == JobStatus.FAILED
    assert job.error == failure.model_dump(exclude={"type"})
    assert record.is_complete


def test_full_disk_of_the_child_pauses_the_job(
    workshop: Workshop, job_id: str, record: Record
) -> None:
    record.write(VALIDATED)
    record.write(RunFailed(code=DISK_FULL, message="No space left on device"))
    assert record.is_complete
    job = workshop.job(job_id)
    assert (job.status, job.attempts, job.error) == (JobStatus.PAUSED, 0, None)
    event = workshop.events(job_id)[-1]
    assert event.level == "error"
    assert event.message.startswith("A disk is full. Free some space, then resume the job.")


def test_late_worker_leaves_no_row_and_no_blob(
    workshop: Workshop, job_id: str, record: Record, make_bundle: Callable[[str], Path]
) -> None:
    record.write(VALIDATED)
    with workshop.database.writing() as session:
        assert claims.rescue_expired(session, worker_id="worker-here") == [job_id]
    messages, blobs = workshop.messages(job_id), workshop.blobs("")
    end = finished(make_bundle("bundle"))
    for late in (step(1), checkpoint(1, make_bundle("step-1")), end, VALIDATED):
        with pytest.raises(StaleClaim):
            record.write(late)
    assert workshop.messages(job_id) == messages
    assert workshop.blobs("") == blobs
    assert workshop.job(job_id).status == JobStatus.QUEUED


def test_end_that_was_committed_without_an_answer_is_not_undone(
    workshop: Workshop,
    job_id: str,
    record: Record,
    make_bundle: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database goes away between a commit and its answer: the transaction runs again."""
    import worker.record

    once = worker.record.commit

    def twice(database, action):  # type: ignore[no-untyped-def]
        once(database, action)
        return once(database, action)

    record.write(VALIDATED)
    monkeypatch.setattr(worker.record, "commit", twice)
    record.write(finished(make_bundle("bundle")))
    assert record.is_complete
    assert workshop.job(job_id).status == JobStatus.SUCCEEDED
    assert workshop.messages(job_id).count("The job has successfully completed") == 1
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/final.zip"}


def test_model_that_is_not_served_as_trained_is_kept_and_marked(
    workshop: Workshop, job_id: str, make_bundle: Callable[[str], Path]
) -> None:
    seen: list[Candidate] = []

    def differs(reference: ParityReference | None, candidate: Candidate) -> Parity:
        assert workshop.store.read(candidate.bundle.key), "it can be fetched by then"
        seen.append(candidate)
        return Parity(status="failed", differs="template", reason="The engine's template differs.")

    record = recording(workshop, differs)
    record.write(VALIDATED)
    record.write(checkpoint(1, make_bundle("step-1")))
    record.write(finished(make_bundle("bundle")))
    job = workshop.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert job.fine_tuned_model is not None and job.result_file is not None
    assert record.is_complete
    assert seen[0].bundle.key == f"bundles/{job_id}/1/final.zip"
    assert workshop.blobs("bundles") == {
        f"bundles/{job_id}/1/step-1.zip",
        f"bundles/{job_id}/1/final.zip",
    }
    told = [event for event in workshop.events(job_id) if event.message.startswith("Parity")]
    assert [(event.level, event.data and event.data["differs"]) for event in told] == [
        ("error", "template")
    ]
    assert f"POST /v1/models/{job.fine_tuned_model}/publish" in told[0].message
    assert "The engine's template differs." in told[0].message


def lost_database(base: BaseModelSpec) -> EngineAddress | None:
    raise RuntimeError("the database went away")


def no_address(base: BaseModelSpec) -> EngineAddress | None:
    return EngineAddress("http://[no address")


@pytest.mark.parametrize("find_engine", [lost_database, no_address])
def test_check_that_fails_itself_costs_no_model(
    workshop: Workshop,
    job_id: str,
    make_bundle: Callable[[str], Path],
    find_engine: Callable[[BaseModelSpec], EngineAddress | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = recording(workshop, ParityCheck(find_engine, lambda: False))
    record.write(VALIDATED)
    end = finished(make_bundle("bundle"))
    record.write(end.model_copy(update={"reference": REFERENCE}))
    job = workshop.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/final.zip"}
    told = [event.message for event in workshop.events(job_id) if "Parity" in event.message]
    assert len(told) == 1 and told[0].endswith(": the check itself failed")
    assert [entry.levelname for entry in caplog.records if entry.exc_info] == ["ERROR"]


def test_interrupted_check_leaves_the_attempt_unfinished_and_no_bundle(
    workshop: Workshop, job_id: str, make_bundle: Callable[[str], Path]
) -> None:
    def engine_at(base: BaseModelSpec) -> EngineAddress | None:
        return EngineAddress("http://127.0.0.1:9")

    record = recording(workshop, ParityCheck(engine_at, lambda: True))
    record.write(VALIDATED)
    end = finished(make_bundle("bundle"))
    record.write(end.model_copy(update={"reference": REFERENCE}))
    assert not record.is_complete
    assert workshop.job(job_id).status == JobStatus.RUNNING
    assert workshop.blobs("bundles") == set()


def test_claim_lost_during_the_check_leaves_no_bundle(
    workshop: Workshop, job_id: str, make_bundle: Callable[[str], Path]
) -> None:
    def cancelled_meanwhile(reference: ParityReference | None, candidate: Candidate) -> Parity:
        workshop.cancel(job_id)
        return Parity(status=status)

    for status in ("passed", "failed"):
        job_id = workshop.job(job_id).id if status == "passed" else workshop.submit()
        record = recording(workshop, cancelled_meanwhile)
        record.write(VALIDATED)
        with pytest.raises(StaleClaim):
            record.write(finished(make_bundle(status)))
        assert workshop.job(job_id).status == JobStatus.CANCELLED
        assert workshop.blobs("bundles") == set()


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
