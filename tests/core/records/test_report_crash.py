"""A run that died under a living worker."""

import pytest

from core.errors import StaleClaim
from core.jobs.state import JobStatus
from core.records import claims, leases
from core.records.database import Database
from core.records.jobs import NewJob, create_job, is_over
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job


def test_crashed_job_waits_again_until_the_cap_and_then_fails(
    database: Database, new_job: NewJob
) -> None:
    with database.writing() as session:
        job_id = create_job(session, new_job).id
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        with database.writing() as session:
            claim = claims.claim_next(session, "worker-1", 30)
            assert claim is not None
            assert not is_over(session, job_id)
            claims.report_crash(session, claim, reason="It was killed.")
        with database.writing() as session:
            assert not leases.is_current(session, claim)
            with pytest.raises(StaleClaim):
                claims.claimed_job(session, claim)
        assert _job(database, job_id).attempts == attempt
    job = _job(database, job_id)
    assert job.status == JobStatus.FAILED
    assert job.error == {"code": "child_crashed", "message": "It was killed.", "param": None}
    with database.reading() as session:
        assert is_over(session, job_id)


def _job(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return get_owned(session, Job, DEFAULT_PROJECT, job_id)
