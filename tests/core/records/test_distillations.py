"""Distillations as rows: each write counts once, files are kept while they are needed."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound, StaleClaim
from core.records import tasks
from core.records.database import Database
from core.records.distillation_progress import (
    TrainingFile,
    add_answers,
    begin,
    begin_filtering,
    end_with_job,
    end_without_job,
    fail_abandoned_distillations,
    set_outcomes,
    stored_numbers,
)
from core.records.distillations import (
    cancel_distillation,
    delete_distillation,
    needs_file,
    prompts_blob_key,
    rows_from,
)
from core.records.files import delete_file, expired_files, file_key
from core.records.jobs import NewJob
from core.records.owned import get_owned
from core.records.tables import Distillation, File, Job
from core.spec.dataset import DatasetReport
from core.spec.job import JobSpec
from core.tasks.failure import TaskFailure
from tests.core.records.distillation_rows import (
    TINY,
    TRAINING_FILE,
    add_distillation,
    claimed,
    request_of,
    row,
)

ID = "distill-1"
FILE = TrainingFile(
    "distill-1.jsonl",
    7,
    "0" * 64,
    file_key(TRAINING_FILE),
    DatasetReport(format="chat", rows=1, faults=(), fault_count=0),
    labelled_rows=0,
)


def job_of(file: File) -> NewJob:
    spec = JobSpec(base=TINY, seed=1)
    return NewJob(file.project_id, "tiny", None, file.id, None, spec, None)


def found(session: Session) -> Distillation:
    return get_owned(session, Distillation, "alpha", ID)


def test_each_group_counts_once(database: Database) -> None:
    with database.writing() as session:
        add_distillation(session)
        claim = claimed(session)
        assert begin(session, claim, ID) == "asking"
    answers = [row(0, "answered"), row(1, "failed", "refusal"), row(2, "answered")]
    outcomes = [row(0, "kept", kept=2), row(2, "dropped", "grader:a")]
    for _ in range(2):
        with database.writing() as session:
            add_answers(session, claim, ID, answers)
            assert begin_filtering(session, claim, ID) == "filtering"
    for _ in range(2):
        with database.writing() as session:
            set_outcomes(session, claim, ID, outcomes)
    with database.reading() as session:
        it = found(session)
        counts = (it.answered, it.failed, it.kept, it.dropped, it.rows)
        assert counts == (2, 1, 1, 1, 2)
        assert it.reasons == {"refusal": 1, "grader:a": 1}
        assert it.usage[0]["invocation_count"] == 5
        assert stored_numbers(session, ID) == {0: "kept", 1: "failed", 2: "dropped"}
        assert [each.number for each in rows_from(session, "alpha", ID, 1, 9)] == [1, 2]
        (kept,) = rows_from(session, "alpha", ID, 0, 9, status="kept")
        assert kept.body == {"number": 0}
        assert rows_from(session, "beta", ID, 0, 9) == []


@pytest.mark.parametrize("repeats", [1, 2])
def test_file_and_job_are_recorded_together_and_once(database: Database, repeats: int) -> None:
    with database.writing() as session:
        add_distillation(session)
        claim = claimed(session)
    for _ in range(repeats):
        with database.writing() as session:
            end = end_with_job(session, claim, ID, FILE, job_of, must_download=True)
            assert end == "training"
    with database.reading() as session:
        (job,) = session.query(Job).all()
        assert found(session).job_id == job.id
        assert get_owned(session, File, "alpha", TRAINING_FILE).bytes == 7
        assert needs_file(session, ID, TRAINING_FILE)


def test_a_job_that_cannot_be_created_leaves_no_file_but_the_one_that_is_recorded_with_the_error(
    database: Database,
) -> None:

    def with_missing_file(file: File) -> NewJob:
        new = job_of(file)
        return NewJob(**vars(new) | {"validation_file": "file-gone"})

    with database.writing() as session:
        add_distillation(session)
        claim = claimed(session)
    with pytest.raises(NotFound), database.writing() as session:
        end_with_job(session, claim, ID, FILE, with_missing_file, must_download=False)
    with database.reading() as session:
        assert session.query(File).all() == [] and found(session).finished_at is None
    error = {"code": "not_found", "message": "gone", "param": None}
    with database.writing() as session:
        assert end_without_job(session, claim, ID, error, FILE) == "failed"
    with database.reading() as session:
        assert found(session).is_written and session.query(Job).all() == []


def test_cancelled_and_deleted_ones_stop_their_worker(database: Database) -> None:
    for end in (cancel_distillation, delete_distillation):
        with database.writing() as session:
            add_distillation(session)
            claim = claimed(session)
            result: Any = end(session, "alpha", ID)
        with pytest.raises(StaleClaim), database.writing() as session:
            add_answers(session, claim, ID, [row(0, "answered")])
        with database.writing() as session:
            assert not needs_file(session, ID, TRAINING_FILE)
            if end is cancel_distillation:
                assert cancel_distillation(session, "alpha", ID).status == "cancelled"
                result = delete_distillation(session, "alpha", ID)
            assert set(result) == {file_key(TRAINING_FILE), prompts_blob_key(ID)}


def test_one_that_has_failed_cannot_be_cancelled(database: Database) -> None:
    with database.writing() as session:
        add_distillation(session)
        error = {"code": "no_rows_kept", "message": "none", "param": None}
        end_without_job(session, claimed(session), ID, error)
    with pytest.raises(Conflict), database.writing() as session:
        cancel_distillation(session, "alpha", ID)


def test_it_fails_with_its_task(database: Database) -> None:
    with database.writing() as session:
        add_distillation(session)
        claim = claimed(session)
        assert fail_abandoned_distillations(session) == []
        tasks.fail(session, claim, TaskFailure(code="worker_lost", message="It died."))
    with database.writing() as session:
        assert fail_abandoned_distillations(session) == [ID]
        assert found(session).error == {"code": "worker_lost", "message": "It died.", "param": None}
        assert fail_abandoned_distillations(session) == []


@pytest.mark.parametrize("use", ["prompts_file", "labelled_file", "validation_file"])
def test_its_files_are_kept_until_it_ends(
    database: Database, make_file: Callable[..., str], use: str
) -> None:
    file_id = make_file("alpha")
    with database.writing() as session:
        get_owned(session, File, "alpha", file_id).expires_at = 1.0
        add_distillation(session, **{use: file_id})
    with pytest.raises(Conflict, match=f"distillation {ID}"), database.writing() as session:
        delete_file(session, "alpha", file_id)
    with database.writing() as session:
        assert expired_files(session) == []
        cancel_distillation(session, "alpha", ID)
    with database.writing() as session:
        assert expired_files(session) == [("alpha", file_id)]
        delete_file(session, "alpha", file_id)


def test_the_request_survives_the_payload() -> None:
    request = request_of(ID)
    assert type(request).model_validate(request.model_dump(mode="json")) == request
