"""Claims: each job to exactly one worker, and no write without a live claim."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.records.claims import (
    Claim,
    claim_next,
    claimed_job,
    release,
    rescue_expired,
)
from core.records.database import Database
from core.records.jobs import advance, cancel_job, is_over
from core.records.leases import beat, hold, is_current
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job

ROOT = Path(__file__).parents[3]

MakeJob = Callable[..., str]
StartJob = Callable[..., Claim]
ReadJob = Callable[[str], Job]

CLAIM_ALL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from core.records.claims import claim_next
from core.records.database import Database

database = Database(sys.argv[1])

def claim_until_none(worker_id):
    claimed = []
    while True:
        with database.writing() as session:
            claim = claim_next(session, worker_id, 30.0)
        if claim is None:
            return claimed
        claimed.append(claim.job_id)

sys.stdin.readline()
with ThreadPoolExecutor(4) as pool:
    for claimed in pool.map(claim_until_none, (f"{sys.argv[2]}-{i}" for i in range(4))):
        print("\\n".join(claimed))
"""


def test_oldest_job_is_claimed_first(database: Database, make_job: MakeJob) -> None:
    created = [make_job() for _ in range(3)]
    with database.writing() as session:
        claims = [claim_next(session, "worker-1", 30) for _ in range(4)]
    assert [claim and claim.job_id for claim in claims] == [*created, None]


def test_threads_and_processes_claim_each_job_once(
    database: Database, database_url: str, make_job: MakeJob, read_job: ReadJob
) -> None:
    created = {make_job() for _ in range(40)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, database_url, f"worker-{i}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = [line for p in processes for line in p.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(claimed) == sorted(created)
    assert all(read_job(job_id).attempts == 1 for job_id in created)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite has one writer
def test_worker_does_not_wait_for_one_that_is_claiming(
    database: Database, make_job: MakeJob
) -> None:
    first, second = make_job(), make_job()
    with database.writing() as session, database.writing() as other:
        mine, theirs = claim_next(session, "worker-1", 30), claim_next(other, "worker-2", 30)
        assert mine is not None and theirs is not None
        assert {mine.job_id, theirs.job_id} == {first, second}


WRITES: dict[str, Callable[[Session, Claim], None]] = {
    "hold": hold,
    "hold with columns": lambda session, claim: hold(session, claim, step=7),
    "beat": lambda session, claim: beat(session, claim, 30),
    "release": lambda session, claim: release(session, claim, reason="late"),
    "advance": lambda session, claim: advance(
        session, claim.job_id, JobStatus.SUCCEEDED, message="late", token=claim.token
    ),
}


@pytest.mark.parametrize("end", ["cancelled", "rescued", "released", "succeeded"])
def test_every_write_of_an_ended_claim_is_refused(
    database: Database, start_job: StartJob, end: str
) -> None:
    claim = start_job("worker-1")
    with database.writing() as session:
        match end:
            case "cancelled":
                cancel_job(session, DEFAULT_PROJECT, claim.job_id)
            case "rescued":
                assert rescue_expired(session, worker_id="worker-1") == [claim.job_id]
            case "released":
                release(session, claim, reason="stopping")
            case "succeeded":
                advance(session, claim.job_id, JobStatus.SUCCEEDED, message="ok", token=claim.token)
    before = _row(database, claim.job_id)
    for write in WRITES.values():
        with pytest.raises(StaleClaim), database.writing() as session:
            write(session, claim)
        assert _row(database, claim.job_id) == before


def _row(database: Database, job_id: str) -> dict[str, object]:
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


def test_beat_extends_the_lease_by_the_clock_of_the_database(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job(lease_seconds=5)
    before = read_job(claim.job_id).lease_expires_at
    with database.writing() as session:
        beat(session, claim, 500)
    after = read_job(claim.job_id).lease_expires_at
    assert before is not None and after is not None
    assert 490 < after - before < 560


def test_released_job_is_claimed_again_and_does_not_count_as_a_crash(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job()
    with database.writing() as session:
        release(session, claim, reason="The worker was stopped.")
    job = read_job(claim.job_id)
    assert (job.status, job.attempts, job.claimed_by) == ("queued", 0, None)
    with database.writing() as session:
        again = claim_next(session, "worker-2", 30)
    assert again is not None and again.job_id == claim.job_id and again.token > claim.token


def test_worker_that_holds_a_job_locks_it_until_it_commits(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    """A cancel that comes during a worker's transaction waits, and wins afterwards."""
    claim = start_job()
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            hold(session, claim, step=3)

            def cancel() -> None:
                with database.writing() as other:
                    cancel_job(other, DEFAULT_PROJECT, claim.job_id)

            cancelled = pool.submit(cancel)
            with pytest.raises(TimeoutError):
                cancelled.result(timeout=0.2)
        cancelled.result(timeout=120)
    job = read_job(claim.job_id)
    assert (job.status, job.step) == ("cancelled", 3)


def test_claim_is_current_until_it_ends(database: Database, start_job: StartJob) -> None:
    claim = start_job()
    with database.reading() as session:
        assert is_current(session, claim)
        assert not is_current(session, Claim("ftjob-unknown", 1))
        assert not is_over(session, claim.job_id)
    with database.writing() as session:
        assert claimed_job(session, claim).id == claim.job_id
        cancel_job(session, DEFAULT_PROJECT, claim.job_id)
    with database.reading() as session:
        assert not is_current(session, claim)
        assert is_over(session, claim.job_id) and is_over(session, "ftjob-unknown")
    with pytest.raises(StaleClaim), database.writing() as session:
        claimed_job(session, claim)
