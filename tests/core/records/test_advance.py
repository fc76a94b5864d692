"""`advance` moves a job exactly as the table says, and writes what belongs to the move."""

import itertools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select, update

from core.errors import Conflict, StaleClaim
from core.jobs.state import FINAL, MOVES, JobStatus
from core.records.claims import Claim, claim_next, park
from core.records.database import Database
from core.records.events import events_since
from core.records.jobs import advance, cancel_job
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job, OutboxMessage

MakeJob = Callable[..., str]
StartJob = Callable[..., Claim]
ReadJob = Callable[[str], Job]


def put(database: Database, job_id: str, status: JobStatus) -> None:
    """Set a status past the life cycle, to test the moves from it."""
    finished_at = 1.0 if status in FINAL else None
    with database.writing() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(status=status, finished_at=finished_at)
        )


def messages(database: Database, job_id: str) -> list[str]:
    with database.reading() as session:
        return [event.message for event in events_since(session, job_id, 0)]


def test_every_pair_of_statuses_moves_exactly_when_the_table_says(
    database: Database, make_job: MakeJob, read_job: ReadJob
) -> None:
    job_id = make_job()
    for before, to in itertools.product(JobStatus, JobStatus):
        put(database, job_id, before)
        count = len(messages(database, job_id))
        if to in MOVES[before]:
            with database.writing() as session:
                advance(session, job_id, to, message=f"{before} to {to}")
            assert read_job(job_id).status == to
            assert messages(database, job_id)[count:] == [f"{before} to {to}"]
        else:
            said = f"is {before} and cannot become {to}"
            if to is JobStatus.CANCELLED:
                said = rf"has already ended \({before}\); nothing needs to be cancelled"
            refusal = pytest.raises(Conflict, match=said)
            with refusal, database.writing() as session:
                advance(session, job_id, to, message="never")
            assert read_job(job_id).status == before
            assert len(messages(database, job_id)) == count


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(targets=st.lists(st.sampled_from(JobStatus), min_size=1, max_size=12))
def test_random_moves_never_leave_the_table(
    database: Database, make_job: MakeJob, read_job: ReadJob, targets: list[JobStatus]
) -> None:
    job_id = make_job()
    path = [JobStatus.VALIDATING_FILES]
    for target in targets:
        try:
            with database.writing() as session:
                advance(session, job_id, target, message=str(target))
        except Conflict:
            continue
        path.append(target)
    assert all(after in MOVES[before] for before, after in itertools.pairwise(path))
    job = read_job(job_id)
    assert job.status == path[-1]
    assert (job.finished_at is not None) == (job.status in FINAL)
    assert messages(database, job_id)[2:] == [str(status) for status in path[1:]]


def test_claim_outlives_the_moves_of_its_worker_up_to_running(
    start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job("worker-1")
    job = read_job(claim.job_id)
    assert (job.status, job.claimed_by, job.claim_token) == ("running", "worker-1", claim.token)
    assert job.lease_expires_at is not None


@pytest.mark.parametrize("to", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.PAUSED])
def test_move_that_ends_the_claim_voids_its_token(
    database: Database, start_job: StartJob, read_job: ReadJob, to: JobStatus
) -> None:
    claim = start_job()
    with database.writing() as session:
        advance(session, claim.job_id, to, message="done", token=claim.token)
    job = read_job(claim.job_id)
    assert (job.claimed_by, job.lease_expires_at) == (None, None)
    assert job.claim_token > claim.token
    with pytest.raises(StaleClaim), database.writing() as session:
        advance(session, claim.job_id, JobStatus.QUEUED, message="late", token=claim.token)


def test_stale_token_is_told_apart_from_a_forbidden_move(
    database: Database, start_job: StartJob
) -> None:
    claim = start_job()
    with pytest.raises(Conflict), database.writing() as session:
        advance(session, claim.job_id, JobStatus.RUNNING, message="again", token=claim.token)
    with pytest.raises(StaleClaim), database.writing() as session:
        advance(session, claim.job_id, JobStatus.FAILED, message="old", token=claim.token - 1)


def test_pause_is_no_crash(database: Database, start_job: StartJob, read_job: ReadJob) -> None:
    claim = start_job()
    for _ in range(8):
        with database.writing() as session:
            park(session, claim, message="paused")
            advance(session, claim.job_id, JobStatus.QUEUED, message="resumed")
            again = claim_next(session, "worker-1", 30)
            assert again is not None
            advance(session, again.job_id, JobStatus.RUNNING, message="on", token=again.token)
        claim = again
    assert read_job(claim.job_id).attempts == 1


def test_cancel_ends_the_claim_and_the_wake_up_call(
    database: Database, make_job: MakeJob, read_job: ReadJob
) -> None:
    job_id = make_job()
    with database.writing() as session:
        claim = claim_next(session, "worker-1", 30)
        assert claim is not None
    with database.writing() as session:
        job = cancel_job(session, DEFAULT_PROJECT, job_id)
        assert (job.status, job.claimed_by) == ("cancelled", None)
    assert read_job(job_id).claim_token > claim.token
    with database.reading() as session:
        assert session.scalars(select(OutboxMessage)).all() == []
    with pytest.raises(Conflict), database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, job_id)
    assert messages(database, job_id).count("The job was cancelled.") == 1
