"""Answers to requests that may be repeated, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select

from core.errors import Conflict
from core.records.database import Database
from core.records.projects import ensure_project
from core.records.remembered import AlreadyAnswered, find_answer, remember
from core.records.tables import Project, RememberedRequest
from core.spec.ids import ProjectId
from core.spec.repeatable import Repeatable

OURS, THEIRS = ProjectId("ours"), ProjectId("theirs")
KEYED = Repeatable("key", 0, "content")
FIRST, SECOND = Repeatable(None, 0, "content"), Repeatable(None, 1, "content")


@pytest.fixture(autouse=True)
def projects(database: Database) -> None:
    with database.writing() as session:
        ensure_project(session, OURS)
        ensure_project(session, THEIRS)


@pytest.mark.parametrize(("asked", "again"), [(KEYED, KEYED), (FIRST, SECOND)])
def test_an_answer_is_found_by_its_own_project_only(
    database: Database, asked: Repeatable, again: Repeatable
) -> None:
    with database.writing() as session:
        remember(session, OURS, asked, "answer")
    with database.reading() as session:
        assert find_answer(session, OURS, again) == "answer"
        assert find_answer(session, THEIRS, again) is None
    with database.writing() as session:
        remember(session, THEIRS, again, "their answer")


def test_a_key_with_other_content_is_a_conflict(database: Database) -> None:
    with database.writing() as session:
        remember(session, OURS, KEYED, "answer")
    with database.writing() as session, pytest.raises(Conflict, match="Idempotency-Key"):
        remember(session, OURS, KEYED._replace(fingerprint="other"), "answer")


def test_what_a_second_transaction_makes_for_the_same_request_is_rolled_back(
    database: Database,
) -> None:
    barrier = Barrier(8)

    def make(number: int) -> bool:
        barrier.wait()
        try:
            with database.writing() as session:
                session.add(Project(id=ProjectId(f"made {number}"), created_at=0))
                session.flush()
                remember(session, OURS, KEYED, f"{number}")
        except AlreadyAnswered:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(8)))
    assert sum(made) == 1
    with database.reading() as session:
        names = set(session.scalars(select(Project.id).where(Project.id.like("made %"))))
        assert names == {f"made {made.index(True)}"}
        assert find_answer(session, OURS, KEYED) == f"{made.index(True)}"


def test_first_tries_are_never_repetitions(database: Database) -> None:
    for answer in ("one", "two"):
        with database.writing() as session:
            remember(session, OURS, FIRST, answer)
    with database.reading() as session:
        assert find_answer(session, OURS, FIRST) is None
        assert find_answer(session, OURS, SECOND) == "two"
        assert len(session.scalars(select(RememberedRequest.name)).all()) == 2
