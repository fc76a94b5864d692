"""Jobs to work on."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.jobs.state import JobStatus
from core.records.claims import Claim, claim_next
from core.records.database import Database
from core.records.files import add_file, new_file_key
from core.records.jobs import NewJob, advance, create_job
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Job
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from tests.core.records.one_row_each import Ids, rows_of_alpha

LEASE_SECONDS = 30.0

TEMPLATE = NewJob(
    project_id=DEFAULT_PROJECT,
    requested_model="tiny",
    suffix=None,
    training_file="",
    validation_file=None,
    spec=JobSpec(base=BaseModelSpec(id="tiny", source="/models/tiny"), seed=1),
    metadata=None,
)


@pytest.fixture
def make_file(database: Database) -> Callable[..., str]:
    """`make_file(project_id=…)` makes a file row, and its project, and returns its id."""

    def make(project_id: str = DEFAULT_PROJECT, purpose: str = "fine-tune") -> str:
        file_id, blob_key = new_file_key()
        with database.writing() as session:
            ensure_project(session, project_id)
            add_file(
                session,
                file_id=file_id,
                project_id=project_id,
                filename="train.jsonl",
                purpose=purpose,
                bytes=1,
                sha256="0" * 64,
                blob_key=blob_key,
                report=None,
            )
        return file_id

    return make


@pytest.fixture
def new_job(make_file: Callable[..., str]) -> NewJob:
    """A job to be created, with a training file that is there."""
    return replace(TEMPLATE, training_file=make_file())


@pytest.fixture
def make_job(database: Database, make_file: Callable[..., str]) -> Callable[..., str]:
    """`make_job(field=…)` makes a job with any fields of NewJob and returns its id."""
    file_of_project: dict[str, str] = {}

    def make(**fields: object) -> str:
        new = replace(TEMPLATE, **fields)
        if not new.training_file:
            if new.project_id not in file_of_project:
                file_of_project[new.project_id] = make_file(new.project_id)
            new = replace(new, training_file=file_of_project[new.project_id])
        with database.writing() as session:
            return create_job(session, new).id

    return make


@pytest.fixture
def start_job(database: Database, make_job: Callable[..., str]) -> Callable[..., Claim]:
    """`start_job()` makes a job, claims it and moves it to `running`."""

    def start(worker_id: str = "worker-1", lease_seconds: float = LEASE_SECONDS) -> Claim:
        job_id = make_job()
        with database.writing() as session:
            claim = claim_next(session, worker_id, lease_seconds)
            assert claim is not None and claim.job_id == job_id, "another job was waiting"
            for status in (JobStatus.QUEUED, JobStatus.RUNNING):
                advance(session, job_id, status, message=str(status), token=claim.token)
        return claim

    return start


@pytest.fixture
def read_job(database: Database) -> Callable[[str], Job]:
    """`read_job(id)` is the job's row as it now stands."""

    def read(job_id: str) -> Job:
        with database.reading() as session:
            return get_owned(session, Job, DEFAULT_PROJECT, job_id)

    return read


@pytest.fixture
def ids(database: Database, make_file: Callable[..., str], make_job: Callable[..., str]) -> Ids:
    file_id, job_id = make_file("alpha"), make_job(project_id="alpha", metadata={"k": "v"})
    with database.writing() as session:
        return rows_of_alpha(session, file_id, job_id)
