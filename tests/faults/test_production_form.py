"""The form for many machines: Postgres and Redis; and the polite end of a worker."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from core.jobs.state import JobStatus
from core.records.resume_states import states_of
from tests.worker.workshop import (
    ENDLESS_EPOCHS,
    TIMEOUT_SECONDS,
    Workshop,
    make_workshop,
    worker_process,
)


@pytest.fixture
def workshop(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workshop]:
    workshop = make_workshop(tmp_path, postgres_url, redis_url)
    yield workshop
    workshop.database.close()


@pytest.fixture
def process(workshop: Workshop) -> Iterator[subprocess.Popen[bytes]]:
    with worker_process(workshop, "worker-polite") as process:
        yield process


def test_jobs_run_over_redis_and_a_terminated_worker_gives_its_job_back(
    workshop: Workshop, process: subprocess.Popen[bytes], redis_url: str
) -> None:
    job_id = workshop.submit()
    workshop.wake(job_id)
    job = workshop.wait_for_end(job_id)
    assert (job.status, job.attempts, job.error) == (JobStatus.SUCCEEDED, 1, None)

    job_id = workshop.submit(epochs=ENDLESS_EPOCHS)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()  # what the broker holds does not matter; the wake-up call comes again
    workshop.wake(job_id)
    workshop.wait_for_steps(job_id)
    process.terminate()
    assert process.wait(timeout=TIMEOUT_SECONDS) == 0
    job = workshop.job(job_id)
    assert (job.status, job.claimed_by, job.attempts) == (JobStatus.QUEUED, None, 0)
    assert [state.step for state in states_of(job)] == [job.step]
    assert any(text.startswith("The worker was stopped.") for text in workshop.messages(job_id))
    assert workshop.living_workers() == []
