"""Jobs of dead workers come back, once, and not for ever."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, update

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.records.claims import MAX_ATTEMPTS, Claim, claim_next, report_crash, rescue_expired
from core.records.database import Database, database_now
from core.records.events import events_since
from core.records.jobs import advance
from core.records.leases import beat
from core.records.tables import Job, OutboxMessage

MakeJob = Callable[..., str]
StartJob = Callable[..., Claim]
ReadJob = Callable[[str], Job]


def expire(database: Database, job_id: str) -> None:
    with database.writing() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(lease_expires_at=database_now() - 0.001)
        )


def rescue_events(database: Database, job_id: str) -> list[str]:
    with database.reading() as session:
        events = events_since(session, job_id, 0)
        return [event.message for event in events if "worker" in event.message]


def test_living_worker_keeps_its_job(database: Database, start_job: StartJob) -> None:
    claim = start_job()
    with database.writing() as session:
        assert rescue_expired(session) == []
        assert rescue_expired(session, worker_id="another") == []
        beat(session, claim, 30)


def test_expired_lease_brings_the_job_back(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job()
    expire(database, claim.job_id)
    with database.writing() as session:
        assert rescue_expired(session) == [claim.job_id]
    job = read_job(claim.job_id)
    assert (job.status, job.claimed_by, job.lease_expires_at, job.step) == ("queued", None, None, 0)
    with database.reading() as session:
        assert session.scalars(select(OutboxMessage.id)).all() == [claim.job_id]
    with database.writing() as session:
        again = claim_next(session, "worker-2", 30)
    assert again is not None and again.token > claim.token
    with pytest.raises(StaleClaim), database.writing() as session:
        beat(session, claim, 30)


def test_worker_that_was_seen_to_end_needs_no_expiry(
    database: Database, start_job: StartJob
) -> None:
    kept, lost = start_job("worker-1"), start_job("worker-2")
    with database.writing() as session:
        assert rescue_expired(session, worker_id="worker-2") == [lost.job_id]
        beat(session, kept, 30)


@pytest.mark.parametrize("validated", [False, True])
def test_job_lost_before_it_ran_keeps_its_status(
    database: Database, make_job: MakeJob, read_job: ReadJob, validated: bool
) -> None:
    job_id = make_job()
    with database.writing() as session:
        claim = claim_next(session, "worker-1", 30)
        assert claim is not None
        if validated:
            advance(session, job_id, JobStatus.QUEUED, message="valid", token=claim.token)
    status = read_job(job_id).status
    expire(database, job_id)
    with database.writing() as session:
        assert rescue_expired(session) == [job_id]
    assert read_job(job_id).status == status
    with database.writing() as session:
        assert claim_next(session, "worker-2", 30) is not None


def test_job_that_keeps_killing_workers_fails(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim: Claim | None = start_job()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim is not None, f"no job to claim at attempt {attempt}"
        job_id = claim.job_id
        expire(database, job_id)
        with database.writing() as session:
            rescued = rescue_expired(session)
            claim = claim_next(session, "worker-1", 30)
        assert rescued == ([job_id] if attempt < MAX_ATTEMPTS else [])
    assert claim is None
    job = read_job(job_id)
    assert job.status == "failed" and job.finished_at is not None
    assert job.error is not None and job.error["code"] == "worker_lost"
    with database.reading() as session:
        assert session.scalars(select(OutboxMessage)).all() == []


def test_ended_job_is_never_rescued(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    """A beat that arrives after the end must not give the job a lease that could expire."""
    claim = start_job()
    with database.writing() as session:
        advance(session, claim.job_id, JobStatus.SUCCEEDED, message="done", token=claim.token)
    with pytest.raises(StaleClaim), database.writing() as session:
        beat(session, claim, -1)
    with database.writing() as session:
        assert rescue_expired(session) == []
        assert rescue_expired(session, worker_id="worker-1") == []
    assert read_job(claim.job_id).status == "succeeded"


def test_two_housekeepers_rescue_each_job_once(database: Database, start_job: StartJob) -> None:
    claims = [start_job(f"worker-{i}") for i in range(6)]
    for claim in claims:
        expire(database, claim.job_id)
    barrier = Barrier(3)

    def keep_house(_: int) -> list[str]:
        barrier.wait()
        with database.writing() as session:
            return list(rescue_expired(session))

    with ThreadPoolExecutor(3) as pool:
        rescued = [job_id for found in pool.map(keep_house, range(3)) for job_id in found]
    assert sorted(rescued) == sorted(claim.job_id for claim in claims)
    for claim in claims:
        assert len(rescue_events(database, claim.job_id)) == 1


def test_rescue_and_beat_at_once_leave_one_winner(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    """Either the worker keeps the job, or it is told that it has lost it."""
    for _ in range(8):
        claim = start_job("worker-1")
        expire(database, claim.job_id)
        barrier = Barrier(2)

        def keep_house(barrier: Barrier = barrier) -> bool:
            barrier.wait()
            with database.writing() as session:
                return bool(rescue_expired(session))

        def work(claim: Claim = claim, barrier: Barrier = barrier) -> bool:
            barrier.wait()
            try:
                with database.writing() as session:
                    beat(session, claim, 30)
            except StaleClaim:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            rescued, kept = pool.submit(keep_house), pool.submit(work)
        assert rescued.result() != kept.result()
        assert read_job(claim.job_id).claimed_by == ("worker-1" if kept.result() else None)
        with database.writing() as session:
            advance(session, claim.job_id, JobStatus.CANCELLED, message="next round")


def test_crash_under_a_living_worker_counts_and_ends_at_the_cap(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim: Claim | None = start_job()
    for _ in range(MAX_ATTEMPTS):
        assert claim is not None
        with database.writing() as session:
            report_crash(session, claim, reason="The training process died.")
            ended, claim = claim, claim_next(session, "worker-1", 30)
        with pytest.raises(StaleClaim), database.writing() as session:
            report_crash(session, ended, reason="twice")
    assert claim is None
    job = read_job(ended.job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "child_crashed")
