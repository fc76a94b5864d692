"""Files: found in their project only, and not deleted under a job that needs them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from core.errors import Conflict, NotFound
from core.records.database import Database
from core.records.files import delete_file, list_files
from core.records.jobs import NewJob, cancel_job, create_job
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import File

MakeFile = Callable[..., str]
MakeJob = Callable[..., str]


@pytest.mark.parametrize("role", ["training_file", "validation_file"])
def test_file_of_an_unfinished_job_is_kept(
    database: Database, make_file: MakeFile, make_job: MakeJob, role: str
) -> None:
    file_id = make_file()
    job_id = make_job(**{role: file_id})
    refusal = pytest.raises(Conflict, match=f"{file_id} is used by job {job_id}")
    with refusal, database.writing() as session:
        delete_file(session, DEFAULT_PROJECT, file_id)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, job_id)
        assert delete_file(session, DEFAULT_PROJECT, file_id).id == file_id
    with pytest.raises(NotFound), database.reading() as session:
        get_owned(session, File, DEFAULT_PROJECT, file_id)


def test_job_needs_files_that_are_there(
    database: Database, make_file: MakeFile, make_job: MakeJob
) -> None:
    for fields, param in (
        ({"training_file": "file-unknown"}, "training_file"),
        ({"validation_file": "file-unknown"}, "validation_file"),
        ({"validation_file": make_file("other")}, "validation_file"),
    ):
        with pytest.raises(NotFound) as refusal:
            make_job(**fields)
        assert (refusal.value.param, refusal.value.code) == (param, "file_not_found")


def test_file_is_not_deleted_while_a_job_is_being_created(
    database: Database, new_job: NewJob
) -> None:
    """The deletion that starts between the check of the file and the commit of the job waits."""
    created = Event()

    def delete() -> None:
        created.wait()
        with database.writing() as session:
            delete_file(session, DEFAULT_PROJECT, new_job.training_file)

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete)
        with database.writing() as session:
            create_job(session, new_job)
            created.set()
            with pytest.raises(TimeoutError):
                deleting.result(timeout=0.2)
        with pytest.raises(Conflict):
            deleting.result(timeout=120)


def test_of_two_deletions_one_finds_nothing(database: Database, make_file: MakeFile) -> None:
    file_id = make_file()

    def delete(_: int) -> bool:
        try:
            with database.writing() as session:
                delete_file(session, DEFAULT_PROJECT, file_id)
        except NotFound:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(delete, range(3))) == [False, False, True]


def test_list_filters_by_purpose(database: Database, make_file: MakeFile) -> None:
    make_file()
    results = make_file(purpose="fine-tune-results")
    with database.reading() as session:
        page = list_files(
            session,
            DEFAULT_PROJECT,
            purpose="fine-tune-results",
            after=None,
            limit=5,
            order="desc",
        )
    assert [file.id for file in page.rows] == [results]
