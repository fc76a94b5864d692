"""Models of scripted runs in storage and database, on both databases."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.parity.asking import Candidate
from core.records import claims, models
from core.spec.parity import Parity, ParityReference
from core.spec.run_request import archive_of
from tests.worker.training.recording import (
    REFERENCE,
    VALIDATED,
    checkpoint,
    finished,
    recording,
    step,
)
from tests.worker.workshop import Workshop, make_workshop
from worker.engine_client.find import EngineAddress
from worker.parity.check import ParityCheck
from worker.training import publish
from worker.training.recorder import Recorder


@pytest.fixture
def workshop(tmp_path: Path, database_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, database_url)
    yield workshop
    workshop.database.close()


def test_checkpoints_can_be_called_and_old_ones_make_room(
    workshop: Workshop, job_id: str, recorder: Recorder, make_bundle: Callable[[str], Path]
) -> None:
    recorder.write(VALIDATED)
    for number in (1, 2, 3, 4):
        recorder.write(checkpoint(number, make_bundle(f"step-{number}")))
    with workshop.database.reading() as session:
        kept = models.list_checkpoints(session, job_id, after=None, limit=9).rows
    assert [c.step for c in kept] == [4, 3, 2]
    assert kept[0].metrics["full_valid_loss"] == 1.1
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/step-{n}.zip" for n in (2, 3, 4)}


def test_archive_leaves_the_workspace_once_it_is_stored(
    recorder: Recorder, make_bundle: Callable[[str], Path]
) -> None:
    recorder.write(VALIDATED)
    folder = make_bundle("step-1")
    recorder.write(checkpoint(1, folder))
    assert not archive_of(folder).exists()
    assert folder.exists()


def test_late_worker_leaves_no_row_and_no_blob(
    workshop: Workshop, job_id: str, recorder: Recorder, make_bundle: Callable[[str], Path]
) -> None:
    recorder.write(VALIDATED)
    with workshop.database.writing() as session:
        assert claims.rescue_expired(session, worker_id="worker-here") == [job_id]
    messages, blobs = workshop.messages(job_id), workshop.blobs("")
    end = finished(make_bundle("bundle"))
    for late in (step(1), checkpoint(1, make_bundle("step-1")), end, VALIDATED):
        with pytest.raises(StaleClaim):
            recorder.write(late)
    assert workshop.messages(job_id) == messages
    assert workshop.blobs("") == blobs
    assert workshop.job(job_id).status == JobStatus.QUEUED


def test_end_that_was_committed_without_an_answer_is_not_undone(
    workshop: Workshop,
    job_id: str,
    recorder: Recorder,
    make_bundle: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database goes away between a commit and its answer: the transaction runs again."""
    once = publish.commit

    def twice(database, action):  # type: ignore[no-untyped-def]
        once(database, action)
        return once(database, action)

    recorder.write(VALIDATED)
    monkeypatch.setattr(publish, "commit", twice)
    recorder.write(finished(make_bundle("bundle")))
    assert recorder.is_complete
    assert workshop.job(job_id).status == JobStatus.SUCCEEDED
    assert workshop.messages(job_id).count("The job has successfully completed") == 1
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/final.zip"}


@pytest.mark.parametrize("does_commit", [True, False])
def test_a_database_that_leaves_the_commit_open_costs_no_blob(
    workshop: Workshop,
    job_id: str,
    recorder: Recorder,
    make_bundle: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    does_commit: bool,
) -> None:
    once = publish.commit

    def unanswered(database, action):  # type: ignore[no-untyped-def]
        if does_commit:
            once(database, action)
        raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    recorder.write(VALIDATED)
    monkeypatch.setattr(publish, "commit", unanswered)
    with pytest.raises(OperationalError):
        recorder.write(checkpoint(1, make_bundle("step-1")))
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/step-1.zip"}


def test_model_that_is_not_served_as_trained_is_kept_and_marked(
    workshop: Workshop, job_id: str, make_bundle: Callable[[str], Path]
) -> None:
    seen: list[Candidate] = []

    def differs(reference: ParityReference | None, candidate: Candidate) -> Parity:
        assert workshop.store.read(candidate.bundle.key), "it can be fetched by then"
        seen.append(candidate)
        return Parity(status="failed", differs="template", reason="The engine's template differs.")

    recorder = recording(workshop, differs)
    recorder.write(VALIDATED)
    recorder.write(checkpoint(1, make_bundle("step-1")))
    recorder.write(finished(make_bundle("bundle")))
    job = workshop.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert job.fine_tuned_model is not None and job.result_file is not None
    assert recorder.is_complete
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


def lost_database(candidate: Candidate) -> EngineAddress | None:
    raise RuntimeError("the database went away")


def faulty(candidate: Candidate) -> EngineAddress | None:
    raise ZeroDivisionError


@pytest.mark.parametrize("find_engine", [lost_database, faulty])
def test_check_that_fails_itself_costs_no_model(
    workshop: Workshop,
    job_id: str,
    make_bundle: Callable[[str], Path],
    find_engine: Callable[[Candidate], EngineAddress | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = recording(workshop, ParityCheck(find_engine, lambda: False))
    recorder.write(VALIDATED)
    end = finished(make_bundle("bundle"))
    recorder.write(end.model_copy(update={"reference": REFERENCE}))
    job = workshop.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert workshop.blobs("bundles") == {f"bundles/{job_id}/1/final.zip"}
    told = [event.message for event in workshop.events(job_id) if "Parity" in event.message]
    assert len(told) == 1 and told[0].endswith(": the check itself failed")
    assert [entry.levelname for entry in caplog.records if entry.exc_info] == ["ERROR"]


def test_interrupted_check_leaves_the_attempt_unfinished_and_no_bundle(
    workshop: Workshop, job_id: str, make_bundle: Callable[[str], Path]
) -> None:
    def engine_at(candidate: Candidate) -> EngineAddress | None:
        return EngineAddress("http://127.0.0.1:9")

    recorder = recording(workshop, ParityCheck(engine_at, lambda: True))
    recorder.write(VALIDATED)
    end = finished(make_bundle("bundle"))
    recorder.write(end.model_copy(update={"reference": REFERENCE}))
    assert not recorder.is_complete
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
        recorder = recording(workshop, cancelled_meanwhile)
        recorder.write(VALIDATED)
        with pytest.raises(StaleClaim):
            recorder.write(finished(make_bundle(status)))
        assert workshop.job(job_id).status == JobStatus.CANCELLED
        assert workshop.blobs("bundles") == set()
