"""Wake-up calls: in the transaction that makes a job runnable, sent again until it is claimed."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update

from core.records import outbox
from core.records.claims import claim_next
from core.records.database import Database, database_now
from core.records.jobs import NewJob, create_job
from core.records.tables import Job, JobEvent, OutboxMessage
from core.tasks.kinds import JOB, Work

MakeJob = Callable[..., str]


def let_time_pass(database: Database, seconds: float) -> None:
    with database.writing() as session:
        session.execute(update(OutboxMessage).values(send_after=OutboxMessage.send_after - seconds))


def due(database: Database) -> list[str]:
    with database.reading() as session:
        return [work.id for work in outbox.due(session)]


def test_message_is_rolled_back_with_its_job(
    database: Database, make_file: Callable[..., str], new_job: NewJob
) -> None:
    with pytest.raises(RuntimeError, match="after the job"), database.writing() as session:
        create_job(session, new_job)
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1
        raise RuntimeError("something fails after the job was written")
    with database.reading() as session:
        for table in (Job, JobEvent, OutboxMessage):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_message_is_due_after_the_grace_of_its_sender(
    database: Database, make_job: MakeJob
) -> None:
    job_id = make_job()
    assert due(database) == []
    let_time_pass(database, outbox.RESEND_AFTER_SECONDS)
    assert due(database) == [job_id]


def test_message_is_sent_again_until_the_job_is_claimed(
    database: Database, make_job: MakeJob
) -> None:
    job_id = make_job()
    for pause_seconds in (15, 15, 30):
        assert due(database) == []
        let_time_pass(database, pause_seconds + 1)
        assert due(database) == [job_id]
        with database.writing() as session:
            outbox.mark_sent(session, Work(JOB, job_id))
        assert due(database) == []
    with database.writing() as session:
        assert session.scalars(select(OutboxMessage.sent_count)).one() == 3
        assert claim_next(session, "worker-1", 30) is not None
    let_time_pass(database, 1000)
    assert due(database) == []


def test_pauses_between_messages_double_up_to_a_quarter_of_an_hour(
    database: Database, make_job: MakeJob
) -> None:
    job_id = make_job()
    pauses = []
    for _ in range(9):
        with database.writing() as session:
            outbox.mark_sent(session, Work(JOB, job_id))
            send_after = select(OutboxMessage.send_after - database_now())
            pauses.append(session.scalars(send_after).one())
    assert pauses == pytest.approx([15, 30, 60, 120, 240, 480, 900, 900, 900], abs=5)


def test_asking_twice_is_asking_once(database: Database, make_job: MakeJob) -> None:
    job_id = make_job()
    with database.writing() as session:
        outbox.enqueue(session, Work(JOB, job_id))
        outbox.enqueue(session, Work(JOB, job_id))
        assert session.scalars(select(OutboxMessage.id)).all() == [job_id]


def test_longest_waiting_messages_come_first(database: Database, make_job: MakeJob) -> None:
    created = [make_job() for _ in range(3)]
    with database.writing() as session:
        for rank, job_id in enumerate([created[2], created[0], created[1]]):
            session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.id == job_id)
                .values(send_after=database_now() - 100 + rank)
            )
    with database.reading() as session:
        assert outbox.due(session, limit=2) == [Work(JOB, created[2]), Work(JOB, created[0])]
