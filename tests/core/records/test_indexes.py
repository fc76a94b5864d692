"""The queries that run all the time are served by an index, however long the history is."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from core.records import outbox, tasks
from core.records.claims import claim_next, rescue_expired
from core.records.database import Database
from core.records.events import events_since
from core.records.files import list_files
from core.records.jobs import list_jobs
from core.records.models import job_trained_from
from core.records.projects import DEFAULT_PROJECT
from core.records.resume_states import left_by_ended_jobs
from core.records.speed_tests import find_speed_test
from core.records.tables import Job
from core.spec.run import BaseModelSpec
from core.spec.serving import ServingSpec
from core.spec.speed import SpeedTarget

HISTORY = 3000
TARGET = SpeedTarget(base=BaseModelSpec(id="m", source="/m"), adapter=None, serving=ServingSpec())

QUERIES: dict[str, tuple[str, Callable[[Any, str, str], object]]] = {
    "first page of jobs": (
        "ix_jobs_project_id_created_at_id",
        lambda session, job, file: list_jobs(session, DEFAULT_PROJECT, after=None, limit=20),
    ),
    "next page of jobs": (
        "ix_jobs_project_id_created_at_id",
        lambda session, job, file: list_jobs(session, DEFAULT_PROJECT, after=job, limit=20),
    ),
    "jobs by metadata": (
        "ix_job_metadata_project_id_key_value",
        lambda session, job, file: list_jobs(
            session, DEFAULT_PROJECT, after=None, limit=20, metadata={"k": "v"}
        ),
    ),
    "next page of files": (
        "ix_files_project_id_created_at_id",
        lambda session, job, file: list_files(
            session, DEFAULT_PROJECT, purpose=None, after=file, limit=20, order="desc"
        ),
    ),
    "claim": ("ix_jobs_unfinished", lambda session, job, file: claim_next(session, "w", 30)),
    "states of ended jobs": (
        "ix_jobs_leaving_states",
        lambda session, job, file: left_by_ended_jobs(session),
    ),
    "jobs trained from a model": (
        "ix_jobs_unfinished",
        lambda session, job, file: job_trained_from(session, "bundles/none"),
    ),
    "expired leases": ("ix_jobs_leased", lambda session, job, file: rescue_expired(session)),
    "events": (
        "pk_job_events|autoindex_job_events",
        lambda session, job, file: events_since(session, job, 5),
    ),
    "claim of a task": (
        "ix_tasks_waiting",
        lambda session, job, file: tasks.claim_next(session, "w", ["mask_audit"]),
    ),
    "expired leases of tasks": (
        "ix_tasks_leased",
        lambda session, job, file: tasks.rescue_expired(session),
    ),
    "tasks to forget": (
        "ix_tasks_ended",
        lambda session, job, file: tasks.forget_old_tasks(session),
    ),
    "newest speed test": (
        "ix_tasks_project_id_kind_subject_created_at",
        lambda session, job, file: find_speed_test(session, DEFAULT_PROJECT, "m1", TARGET),
    ),
    "outbox": ("ix_outbox_send_after", lambda session, job, file: outbox.due(session)),
}


@pytest.fixture
def history(
    database: Database, make_job: Callable[..., str], read_job: Callable[[str], Job]
) -> tuple[str, str]:
    """Many finished jobs, files and events copied from one; returns the ids of job and file."""
    job_id = make_job(metadata={"k": "v"})
    with database.writing() as session:
        for kind in ("mask_audit", "speed_test"):
            tasks.create_task(session, DEFAULT_PROJECT, kind, subject="m", payload=TARGET)
    file_id = read_job(job_id).training_file
    if database.engine.dialect.name == "sqlite":
        series = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {HISTORY})"
        )
        source = "n"
    else:
        series, source = "", f"generate_series(1, {HISTORY}) AS n(i)"

    def copies(table: Any, **changed: str) -> str:
        names = [column.name for column in table.columns]
        values = ", ".join(changed.get(name, f"{table.name}.{name}") for name in names)
        return (
            f"INSERT INTO {table.name} ({', '.join(names)}) {series} "
            f"SELECT {values} FROM {table.name}, {source}"
        )

    tables = Job.metadata.tables
    with database.writing() as session:
        for statement in (
            copies(tables["files"], id="files.id || n.i", created_at="files.created_at + n.i"),
            copies(
                tables["jobs"],
                id="jobs.id || n.i",
                created_at="jobs.created_at - n.i",
                status="'succeeded'",
                finished_at="1.0",
            ),
            copies(
                tables["job_metadata"],
                job_id="job_metadata.job_id || n.i",
                value="job_metadata.value || n.i",
            ),
            copies(
                tables["tasks"],
                id="tasks.id || n.i",
                subject="tasks.subject || n.i",
                finished_at="tasks.created_at",
            ),
            "DELETE FROM job_events WHERE sequence = 2",
            copies(tables["job_events"], job_id="job_events.job_id || n.i"),
            copies(
                tables["outbox"],
                id="outbox.id || n.i",
                send_after="outbox.send_after + n.i",
            ),
        ):
            session.execute(text(statement))
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()
    return job_id, file_id


def test_no_frequent_query_reads_a_whole_table(
    database: Database, history: tuple[str, str]
) -> None:
    for name, (index, query) in QUERIES.items():
        plan = explain(database, lambda session, query=query: query(session, *history))
        assert re.search(index, plan), f"{name}:\n{plan}"
        assert not re.search(
            r"Seq Scan on (jobs|files|tasks)|SCAN (jobs|files|tasks)$", plan, re.M
        ), f"{name}:\n{plan}"


def explain(database: Database, query: Callable[[Any], object]) -> str:
    """The plans of every statement that `query` sends, under the parameters that it sends."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.writing() as session:
            query(session)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    keyword = "EXPLAIN QUERY PLAN " if database.engine.dialect.name == "sqlite" else "EXPLAIN "
    with database.engine.connect() as connection:
        return "\n".join(
            str(row[-1])
            for statement, parameters in sent
            for row in connection.exec_driver_sql(keyword + statement, parameters)
        )
