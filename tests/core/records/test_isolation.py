"""Another project's rows do not exist, whichever function looks for them."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.database import Database
from core.records.files import delete_file, get_file, list_files
from core.records.jobs import cancel_job, get_job, list_jobs
from core.records.models import (
    StoredBundle,
    add_final_model,
    delete_model,
    get_model,
    list_models,
    set_serving,
)
from core.spec.serving import ServingSpec


@dataclass(frozen=True)
class Owned:
    file: str
    job: str
    model: str


@pytest.fixture
def owned(database: Database, make_file: Callable[..., str], make_job: Callable[..., str]) -> Owned:
    """One of each, owned by the project `alpha`."""
    file_id, job_id = make_file("alpha"), make_job(project_id="alpha", metadata={"k": "v"})
    with database.writing() as session:
        job = get_job(session, "alpha", job_id)
        add_final_model(session, job, "ft:tiny:alpha::1", StoredBundle("key", "0" * 64))
    return Owned(file_id, job_id, "ft:tiny:alpha::1")


GETTERS: dict[str, Callable[[Session, str, Owned], object]] = {
    "get_file": lambda session, project, owned: get_file(session, project, owned.file),
    "delete_file": lambda session, project, owned: delete_file(session, project, owned.file),
    "get_job": lambda session, project, owned: get_job(session, project, owned.job),
    "cancel_job": lambda session, project, owned: cancel_job(session, project, owned.job),
    "get_model": lambda session, project, owned: get_model(session, project, owned.model),
    "set_serving": lambda session, project, owned: set_serving(
        session, project, owned.model, ServingSpec(form="merged")
    ),
    "delete_model": lambda session, project, owned: delete_model(session, project, owned.model),
}

LISTS: dict[str, Callable[[Session, str], object]] = {
    "files": lambda session, project: (
        list_files(session, project, purpose=None, after=None, limit=9, order="desc").rows
    ),
    "jobs": lambda session, project: list_jobs(session, project, after=None, limit=9).rows,
    "jobs by metadata": lambda session, project: (
        list_jobs(session, project, after=None, limit=9, metadata={"k": "v"}).rows
    ),
    "models": list_models,
}


def test_no_getter_finds_a_row_of_another_project(database: Database, owned: Owned) -> None:
    for get in GETTERS.values():
        with pytest.raises(NotFound), database.writing() as session:
            get(session, "beta", owned)
    for get in GETTERS.values():
        with database.writing() as session:
            get(session, "alpha", owned)


def test_no_list_shows_a_row_of_another_project(database: Database, owned: Owned) -> None:
    with database.reading() as session:
        for rows in LISTS.values():
            assert rows(session, "beta") == []
            assert rows(session, "alpha") != []
