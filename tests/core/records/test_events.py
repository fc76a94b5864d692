"""A job's history has no gaps, whoever writes it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import StatementError

from core.records.database import Database
from core.records.events import NewEvent, append_events, events_since, list_events
from core.records.tables import Job

MakeJob = Callable[..., str]


def test_concurrent_writers_leave_no_gap(
    database: Database, make_job: MakeJob, read_job: Callable[[str], Job]
) -> None:
    job_id = make_job()

    def write(writer: int) -> None:
        for number in range(6):
            with database.writing() as session:
                append_events(session, job_id, [NewEvent(f"{writer}.{number}")] * (number % 3 + 1))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with database.reading() as session:
        events = events_since(session, job_id, 0)
    assert [event.sequence for event in events] == list(range(1, 2 + 6 * 12 + 1))
    assert read_job(job_id).event_count == len(events)
    for writer in range(6):
        own = [event.message for event in events if event.message.startswith(f"{writer}.")]
        assert own == sorted(own)


def test_failed_transaction_leaves_no_gap(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with pytest.raises(RuntimeError), database.writing() as session:
        append_events(session, job_id, [NewEvent("lost")])
        raise RuntimeError
    with database.writing() as session:
        append_events(session, job_id, [NewEvent("kept")])
    with database.reading() as session:
        assert [e.sequence for e in events_since(session, job_id, 0)] == [1, 2, 3]


def test_pages_of_events_in_both_directions(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.writing() as session:
        append_events(session, job_id, [NewEvent(str(number)) for number in range(3, 8)])
    with database.reading() as session:
        first = list_events(session, job_id, limit=3)
        assert ([e.sequence for e in first.rows], first.has_more) == ([7, 6, 5], True)
        last = list_events(session, job_id, before=5, limit=4)
        assert ([e.sequence for e in last.rows], last.has_more) == ([4, 3, 2, 1], False)
        assert [e.sequence for e in events_since(session, job_id, 5)] == [6, 7]
        assert [e.sequence for e in events_since(session, job_id, 1, limit=2)] == [2, 3]
        assert events_since(session, job_id, 7) == []
        [last] = list_events(session, job_id, limit=1).rows
    assert last.id == f"ftevent-{job_id.removeprefix('ftjob-')}-7"


def test_text_that_a_database_refuses_is_replaced(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.writing() as session:
        append_events(session, job_id, [NewEvent("line 3: \0 and \ud800 and é")])
    with database.reading() as session:
        assert list_events(session, job_id, limit=1).rows[0].message == "line 3: \ufffd and ? and é"


def test_number_that_no_client_can_read_is_refused(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    refusal = pytest.raises((StatementError, ValueError), match="JSON compliant")
    with refusal, database.writing() as session:
        append_events(
            session, job_id, [NewEvent("step", type="metrics", data={"loss": float("nan")})]
        )
