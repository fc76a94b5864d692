"""Transactions: writers queue up, readers see one state."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from core.records.database import Database, database_now
from core.records.projects import ensure_project
from core.records.tables import Project
from core.records.workers import forget_dead_workers, living_workers, worker_gone, worker_seen
from core.tasks.kinds import Queue

ROOT = Path(__file__).parents[3]

WRITERS = 12
ROUNDS = 12

READ_AND_WRITE = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import func, select
from core.records.database import Database
from core.records.tables import Project

database = Database(sys.argv[1])

def work(writer):
    for number in range({ROUNDS}):
        with database.writing() as session:
            session.scalar(select(func.count()).select_from(Project))  # read first, then write
            session.add(Project(id=f"{{sys.argv[2]}}-{{writer}}-{{number}}"))
        with database.reading() as session:
            session.scalar(select(func.count()).select_from(Project))

with ThreadPoolExecutor({WRITERS}) as pool:
    list(pool.map(work, range({WRITERS})))
"""


def test_sqlite_writers_in_threads_and_processes_never_find_it_locked(sqlite_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READ_AND_WRITE, sqlite_url, str(number)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    database = Database(sqlite_url)
    with database.reading() as session:
        assert len(session.scalars(select(Project)).all()) == 2 * WRITERS * ROUNDS
    database.close()


def test_reader_sees_one_state_and_does_not_wait_for_a_writer(database: Database) -> None:
    with database.writing() as session:
        ensure_project(session, "first")
    with database.reading() as reader:
        assert reader.scalars(select(Project.id)).all() == ["first"]
        with database.writing() as session:
            ensure_project(session, "second")
        assert reader.scalars(select(Project.id)).all() == ["first"]
    with database.reading() as reader:
        assert len(reader.scalars(select(Project.id)).all()) == 2


def test_reading_session_keeps_nothing_that_is_written_in_it(database: Database) -> None:
    try:
        with database.reading() as session:
            ensure_project(session, "stray")
    except DBAPIError as error:  # Postgres says so at once
        assert "read-only transaction" in str(error)
    with database.reading() as session:
        assert session.get(Project, "stray") is None


def test_writing_session_rolls_back_when_its_block_raises(database: Database) -> None:
    with pytest.raises(RuntimeError), database.writing() as session:
        ensure_project(session, "lost")
        raise RuntimeError
    with database.reading() as session:
        assert session.get(Project, "lost") is None


def test_clock_of_the_database_is_unix_time(database: Database) -> None:
    with database.reading() as session:
        before = time.time()
        now = session.scalar(select(database_now()))
        assert isinstance(now, float)
        assert before - 0.01 <= now <= time.time() + 0.01


def test_postgres_clock_runs_on_within_a_transaction(postgres_url: str) -> None:
    """`now()` would stand still, and a lease be measured from the wrong moment."""
    database = Database(postgres_url)
    with database.writing() as session:
        before = session.scalar(select(database_now()))
        session.execute(text("SELECT pg_sleep(0.05)"))
        after = session.scalar(select(database_now()))
    database.close()
    assert before is not None and after is not None and after - before >= 0.05


def test_foreign_keys_are_kept(database: Database) -> None:
    refusal = pytest.raises(DBAPIError, match=r"(?i)foreign key")
    with refusal, database.writing() as session:
        session.execute(text("INSERT INTO job_metadata VALUES ('ftjob-unknown', 'k', 'p', 'v')"))


def test_project_is_made_once(database: Database) -> None:
    for _ in range(2):
        with database.writing() as session:
            ensure_project(session)
    with database.reading() as session:
        assert session.scalars(select(Project.id)).all() == ["default"]


def test_worker_lives_while_it_is_seen(database: Database) -> None:
    with database.writing() as session:
        worker_seen(session, "worker-1", "cpu", Queue.DEVICE)
        worker_seen(session, "worker-1", "cpu", Queue.DEVICE)
        worker_seen(session, "worker-2", "cuda:0", Queue.DEVICE)
    with database.reading() as session:
        assert {w.id for w in living_workers(session, 60)} == {"worker-1", "worker-2"}
        assert living_workers(session, -60) == []
    with database.writing() as session:
        worker_gone(session, "worker-1")
    with database.reading() as session:
        assert [(w.id, w.device) for w in living_workers(session, 60)] == [("worker-2", "cuda:0")]
    with database.writing() as session:
        forget_dead_workers(session, 60)
        assert len(living_workers(session, 60)) == 1
        forget_dead_workers(session, -60)
        assert living_workers(session, 60) == []
