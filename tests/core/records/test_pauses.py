"""Pause and resume, in whatever a job is doing, and whoever gets there first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select

from core.errors import Conflict, NotFound, StaleClaim
from core.jobs.state import JobStatus
from core.records.claims import (
    MAX_ATTEMPTS,
    Claim,
    claim_next,
    is_pause_requested,
    park,
    release,
    report_crash,
    rescue_expired,
)
from core.records.database import Database
from core.records.events import events_since
from core.records.jobs import advance, cancel_job
from core.records.leases import hold
from core.records.pauses import pause_job, resume_job
from core.records.projects import DEFAULT_PROJECT
from core.records.resume_states import ResumeState, as_column, left_by_ended_jobs, with_newest
from core.records.tables import Job, OutboxMessage

MakeJob = Callable[..., str]
StartJob = Callable[..., Claim]
ReadJob = Callable[[str], Job]


def pause(database: Database, job_id: str) -> None:
    with database.writing() as session:
        pause_job(session, DEFAULT_PROJECT, job_id)


def resume(database: Database, job_id: str) -> None:
    with database.writing() as session:
        resume_job(session, DEFAULT_PROJECT, job_id)


def claim_any(database: Database) -> Claim | None:
    with database.writing() as session:
        return claim_next(session, "worker-1", 30)


def outbox(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(OutboxMessage.id)))


def last_message(database: Database, job_id: str) -> str:
    with database.reading() as session:
        return events_since(session, job_id, 0)[-1].message


def with_state(database: Database, claim: Claim, step: int) -> None:
    states = [ResumeState(step=step, key=f"resume/{claim.job_id}/{step}", sha256="0" * 64)]
    with database.writing() as session:
        hold(session, claim, step=step + 3, resume_states=as_column(states))


def test_waiting_job_is_parked_at_once_and_claimed_by_nobody(
    database: Database, make_job: MakeJob, read_job: ReadJob
) -> None:
    job_id = make_job()
    pause(database, job_id)
    job = read_job(job_id)
    assert (job.status, job.attempts, job.pause_requested_at) == ("paused", 0, None)
    assert job.paused_at is not None
    assert outbox(database) == []
    assert claim_any(database) is None
    resume(database, job_id)
    job = read_job(job_id)
    assert (job.status, job.paused_at) == ("queued", None)
    assert outbox(database) == [job_id]
    assert claim_any(database) is not None


def test_running_job_is_asked_and_parked_when_its_worker_gives_it_back(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job()
    with_state(database, claim, step=20)
    pause(database, claim.job_id)
    job = read_job(claim.job_id)
    assert (job.status, job.paused_at, job.claimed_by) == ("running", None, "worker-1")
    with database.reading() as session:
        assert is_pause_requested(session, claim)
    with database.writing() as session:
        release(session, claim, reason="The run was stopped.")
    job = read_job(claim.job_id)
    assert (job.status, job.step, job.attempts, job.pause_requested_at) == ("paused", 20, 0, None)
    said = "The run was stopped. The job is paused after step 20."
    assert last_message(database, claim.job_id) == said
    assert outbox(database) == []
    with pytest.raises(StaleClaim), database.reading() as session:
        is_pause_requested(session, claim)


@pytest.mark.parametrize("end", ["lease", "worker", "child"])
def test_job_to_be_paused_is_parked_when_its_run_dies(
    database: Database, start_job: StartJob, read_job: ReadJob, end: str
) -> None:
    claim = start_job(lease_seconds=0.0 if end == "lease" else 30.0)
    pause(database, claim.job_id)
    with database.writing() as session:
        match end:
            case "lease":
                assert rescue_expired(session) == [claim.job_id]
            case "worker":
                assert rescue_expired(session, worker_id="worker-1") == [claim.job_id]
            case "child":
                report_crash(session, claim, reason="It was killed.")
    job = read_job(claim.job_id)
    assert (job.status, job.attempts, job.claimed_by) == ("paused", 1, None)
    assert claim_any(database) is None
    assert outbox(database) == []


def test_job_in_validation_is_parked_and_goes_on_in_the_queue(
    database: Database, make_job: MakeJob, read_job: ReadJob
) -> None:
    job_id = make_job()
    claim = claim_any(database)
    assert claim is not None
    pause(database, job_id)
    assert read_job(job_id).status == "validating_files"
    with database.writing() as session:
        release(session, claim, reason="The run was stopped.")
    assert read_job(job_id).status == "paused"
    resume(database, job_id)
    again = claim_any(database)
    assert again is not None
    with database.writing() as session:
        advance(session, job_id, JobStatus.RUNNING, message="on", token=again.token)


def test_request_can_be_withdrawn_and_the_job_goes_on(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job()
    pause(database, claim.job_id)
    resume(database, claim.job_id)
    job = read_job(claim.job_id)
    assert (job.status, job.pause_requested_at, job.claimed_by) == ("running", None, "worker-1")
    assert outbox(database) == []
    with database.reading() as session:
        assert not is_pause_requested(session, claim)
    with database.writing() as session:  # the child had been asked to stop before that
        release(session, claim, reason="The run was stopped.")
    assert (read_job(claim.job_id).status, outbox(database)) == ("queued", [claim.job_id])


def test_pause_of_what_is_paused_or_over_and_resume_of_what_is_not_are_refused(
    database: Database, start_job: StartJob
) -> None:
    claim = start_job()
    with pytest.raises(Conflict, match="is running and not paused"):
        resume(database, claim.job_id)
    pause(database, claim.job_id)
    with pytest.raises(Conflict, match="already paused or about to pause"):
        pause(database, claim.job_id)
    with database.writing() as session:
        release(session, claim, reason="The run was stopped.")
    with pytest.raises(Conflict, match="already paused or about to pause"):
        pause(database, claim.job_id)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, claim.job_id)
    with pytest.raises(Conflict, match=r"already ended \(cancelled\)"):
        pause(database, claim.job_id)
    with pytest.raises(Conflict, match="is cancelled and not paused"):
        resume(database, claim.job_id)


def test_job_of_another_project_is_not_found(database: Database, make_job: MakeJob) -> None:
    job_id = make_job(project_id="another")
    for move in (pause, resume):
        with pytest.raises(NotFound):
            move(database, job_id)


@pytest.mark.parametrize("when", ["requested", "paused", "resumed"])
def test_cancel_works_whatever_the_pause_is_at(
    database: Database, start_job: StartJob, read_job: ReadJob, when: str
) -> None:
    claim = start_job()
    pause(database, claim.job_id)
    if when != "requested":
        with database.writing() as session:
            release(session, claim, reason="The run was stopped.")
    if when == "resumed":
        resume(database, claim.job_id)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, claim.job_id)
    job = read_job(claim.job_id)
    assert (job.status, job.paused_at, job.pause_requested_at) == ("cancelled", None, None)
    assert outbox(database) == []
    with pytest.raises(StaleClaim), database.writing() as session:
        release(session, claim, reason="late")


def test_run_that_ends_before_it_can_be_paused_has_succeeded(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim = start_job()
    pause(database, claim.job_id)
    with database.writing() as session:
        advance(session, claim.job_id, JobStatus.SUCCEEDED, message="done", token=claim.token)
    job = read_job(claim.job_id)
    assert (job.status, job.pause_requested_at, job.paused_at) == ("succeeded", None, None)


def test_pause_and_claim_at_once_leave_no_paused_job_that_is_held(
    database: Database, make_job: MakeJob, read_job: ReadJob
) -> None:
    """Either the job is parked and nobody has it, or its worker will see the request."""
    for _ in range(8):
        job_id = make_job()
        barrier = Barrier(2)

        def ask(job_id: str = job_id, barrier: Barrier = barrier) -> None:
            barrier.wait()
            pause(database, job_id)

        def claim(barrier: Barrier = barrier) -> Claim | None:
            barrier.wait()
            return claim_any(database)

        with ThreadPoolExecutor(2) as pool:
            asked, claimed = pool.submit(ask), pool.submit(claim)
        asked.result()
        job = read_job(job_id)
        if claimed.result() is None:
            assert (job.status, job.pause_requested_at) == ("paused", None)
        else:
            assert job.status == "validating_files" and job.pause_requested_at is not None
        with database.writing() as session:
            cancel_job(session, DEFAULT_PROJECT, job_id)


def test_job_that_its_worker_parks_waits_for_its_owner_and_counts_no_crash(
    database: Database, start_job: StartJob, read_job: ReadJob
) -> None:
    claim: Claim | None = start_job()
    for _ in range(MAX_ATTEMPTS + 1):
        assert claim is not None
        with database.writing() as session:
            park(session, claim, message="A disk is full.")
        assert read_job(claim.job_id).attempts == 0
        assert claim_any(database) is None
        resume(database, claim.job_id)
        claim = claim_any(database)


@pytest.mark.parametrize("state_at", [0, 20])
def test_rescued_job_keeps_the_steps_that_are_saved(
    database: Database, start_job: StartJob, read_job: ReadJob, state_at: int
) -> None:
    claim = start_job()
    with database.writing() as session:
        hold(session, claim, step=23)
    if state_at:
        with_state(database, claim, step=state_at)
    with database.writing() as session:
        rescue_expired(session, worker_id="worker-1")
    assert read_job(claim.job_id).step == state_at
    expected = "will resume from step 20." if state_at else "will start again."
    assert last_message(database, claim.job_id) == f"The worker was lost. The job {expected}"


def test_only_jobs_that_have_ended_leave_states(database: Database, start_job: StartJob) -> None:
    kept, ended = start_job("worker-1"), start_job("worker-2")
    for claim in (kept, ended):
        with_state(database, claim, step=1)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, ended.job_id)
        assert left_by_ended_jobs(session) == {ended.job_id: [f"resume/{ended.job_id}/1"]}


def test_newest_state_takes_the_place_of_its_own_step_and_of_the_oldest() -> None:
    one, two, three = (ResumeState(step=n, key=f"a/{n}", sha256="0" * 64) for n in (1, 2, 3))
    assert with_newest((), one) == ((one,), ())
    assert with_newest((two, one), three) == ((three, two), ("a/1",))
    again = ResumeState(step=2, key="b/2", sha256="1" * 64)
    assert with_newest((two, one), again) == ((again, one), ("a/2",))
    assert with_newest((two, one), two) == ((two, one), ())
