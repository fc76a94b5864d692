"""Keyset pages: every row that stays is seen exactly once, whatever comes and goes meanwhile."""

import random
from collections.abc import Callable

import pytest
from sqlalchemy import update

from core.errors import NotFound
from core.records.database import Database
from core.records.files import delete_file, list_files
from core.records.jobs import list_jobs
from core.records.pages import Order
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import File

MakeFile = Callable[..., str]
MakeJob = Callable[..., str]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_walk_during_inserts_and_deletes_skips_and_repeats_nothing(
    database: Database, make_file: MakeFile, order: Order
) -> None:
    draw = random.Random(order)
    files = [make_file() for _ in range(30)]
    with database.writing() as session:
        session.execute(update(File).values(created_at=1.0))  # all in one instant: ids decide
    deleted: set[str] = set()
    seen: list[str] = []
    after = None
    has_more = True
    while has_more:
        with database.reading() as session:
            page = list_files(
                session, DEFAULT_PROJECT, purpose=None, after=after, limit=4, order=order
            )
        seen += [file.id for file in page.rows]
        after, has_more = seen[-1], page.has_more
        make_file()
        victim = draw.choice([f for f in files if f not in deleted and f != after])
        deleted.add(victim)
        with database.writing() as session:
            delete_file(session, DEFAULT_PROJECT, victim)
    assert len(seen) == len(set(seen))
    assert set(files) - deleted <= set(seen)


def test_pages_are_newest_first_and_know_their_end(database: Database, make_job: MakeJob) -> None:
    created = [make_job() for _ in range(5)]
    with database.reading() as session:
        first = list_jobs(session, DEFAULT_PROJECT, after=None, limit=3)
        rest = list_jobs(session, DEFAULT_PROJECT, after=first.rows[-1].id, limit=2)
        end = list_jobs(session, DEFAULT_PROJECT, after=rest.rows[-1].id, limit=2)
    assert [job.id for job in (*first.rows, *rest.rows)] == created[::-1]
    assert (first.has_more, rest.has_more, end.has_more) == (True, False, False)
    assert end.rows == []


def test_page_after_an_unknown_row_is_refused(database: Database, make_job: MakeJob) -> None:
    foreign = make_job(project_id="other")
    for after in ("ftjob-unknown", foreign):
        with pytest.raises(NotFound, match=after) as refusal, database.reading() as session:
            list_jobs(session, DEFAULT_PROJECT, after=after, limit=3)
        assert refusal.value.param == "after"


def test_metadata_filter_wants_every_pair(database: Database, make_job: MakeJob) -> None:
    both = make_job(metadata={"team": "red", "stage": "1"})
    make_job(metadata={"team": "red"})
    make_job(metadata={"stage": "red", "team": "1"})
    make_job()
    make_job(project_id="other", metadata={"team": "red", "stage": "1"})

    def found(metadata: dict[str, str]) -> int:
        with database.reading() as session:
            return len(
                list_jobs(session, DEFAULT_PROJECT, after=None, limit=9, metadata=metadata).rows
            )

    with database.reading() as session:
        [bare] = list_jobs(
            session, DEFAULT_PROJECT, after=None, limit=9, without_metadata=True
        ).rows
    assert bare.user_metadata is None
    assert (found({"team": "red"}), found({"team": "blue"}), found({})) == (2, 0, 4)
    with database.reading() as session:
        [job] = list_jobs(
            session, DEFAULT_PROJECT, after=None, limit=9, metadata={"stage": "1", "team": "red"}
        ).rows
    assert (job.id, job.user_metadata) == (both, {"team": "red", "stage": "1"})
