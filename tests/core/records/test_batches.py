"""Batches in the database: what a worker writes under its claim, and what owners may do when."""

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflict, StaleClaim
from core.records import tasks
from core.records.batch_progress import (
    Part,
    Tokens,
    add_part,
    begin_batch,
    begin_finalizing,
    end_batch,
    fail_abandoned,
    parts_of,
    should_finish,
)
from core.records.batches import BATCH, NewBatch, cancel_batch, create_batch
from core.records.database import Database
from core.records.files import delete_file, expired_files
from core.records.tables import Batch, File, Task
from core.records.tasks import TaskClaim
from core.spec.batch import BatchStatus
from core.storage.blobs import Blob


@pytest.fixture
def batch_id(database: Database, make_file: Callable[..., str]) -> str:
    new = NewBatch("default", "/v1/completions", make_file(), "24h", 86_400, 9, None, None, 3600)
    with database.writing() as session:
        return create_batch(session, new, "files/x", {})[0].id


def claimed(database: Database) -> TaskClaim:
    with database.writing() as session:
        claim = tasks.claim_next(session, "worker-1", [BATCH])
    assert claim is not None
    return claim


def begun(database: Database, batch_id: str) -> TaskClaim:
    claim = claimed(database)
    with database.writing() as session:
        assert begin_batch(session, claim, batch_id) is BatchStatus.IN_PROGRESS
    return claim


def part(number: int, *lines: int, completed: int = 1) -> Part:
    tokens = Tokens(input=3, output=2, reasoning=1)
    return Part(number, lines, f"batches/b/{number}.output", None, completed, tokens)


def row(session: Session, batch_id: str) -> Batch:
    return session.scalars(select(Batch).where(Batch.id == batch_id)).one()


def test_part_that_is_recorded_twice_counts_once(database: Database, batch_id: str) -> None:
    claim = begun(database, batch_id)
    for each in (part(0, 1, 2), part(0, 1, 2), part(1, 3)):
        with database.writing() as session:
            add_part(session, claim, batch_id, each)
    with database.reading() as session:
        batch = row(session, batch_id)
        assert (batch.completed, batch.failed) == (2, 1)
        assert (batch.input_tokens, batch.output_tokens, batch.reasoning_tokens) == (6, 4, 2)
        assert [each.lines for each in parts_of(session, batch_id)] == [[1, 2], [3]]


def test_worker_without_its_claim_writes_nothing(database: Database, batch_id: str) -> None:
    claim = begun(database, batch_id)
    with database.writing() as session:
        assert tasks.rescue_expired(session, worker_id="worker-1") == [claim.work]
    for write in (
        lambda session: begin_batch(session, claim, batch_id),
        lambda session: add_part(session, claim, batch_id, part(0, 1)),
        lambda session: begin_finalizing(session, claim, batch_id),
        lambda session: end_batch(session, claim, batch_id, output=None, error=None, unanswered=0),
    ):
        with pytest.raises(StaleClaim), database.writing() as session:
            write(session)
    with database.reading() as session:
        assert parts_of(session, batch_id) == []
        assert row(session, batch_id).status == BatchStatus.IN_PROGRESS


def test_progress_forgives_earlier_deaths(database: Database, batch_id: str) -> None:
    for number in range(3):
        claim = begun(database, batch_id)
        if number == 2:
            with database.writing() as session:
                add_part(session, claim, batch_id, part(0, 1))
        with database.reading() as session:
            attempts = session.scalars(select(Task.attempts)).one()
        assert attempts == (1, 2, 1)[number]
        with database.writing() as session:
            tasks.rescue_expired(session, worker_id="worker-1")


def test_repeated_end_uses_the_same_files(database: Database, batch_id: str) -> None:
    claim = begun(database, batch_id)
    ids = set()
    for _ in range(2):
        with database.writing() as session:
            status, files = begin_finalizing(session, claim, batch_id)
        ids.add(files)
        assert status is BatchStatus.FINALIZING
    [files] = ids
    blob = Blob(f"files/{files.output}", 5, "0" * 64)
    for _ in range(2):
        with database.writing() as session:
            ended = end_batch(session, claim, batch_id, output=blob, error=None, unanswered=0)
        assert ended is BatchStatus.COMPLETED
    with database.reading() as session:
        batch = row(session, batch_id)
        assert (batch.output_file_id, batch.error_file_id) == (files.output, None)
        file = session.scalars(select(File).where(File.id == files.output)).one()
        assert file.expires_at == pytest.approx((batch.finished_at or 0) + 3600, abs=60)


@pytest.mark.parametrize(
    ("unanswered", "is_cancelled", "status"),
    [
        (0, False, BatchStatus.COMPLETED),
        (2, False, BatchStatus.EXPIRED),
        (0, True, BatchStatus.CANCELLED),
        (2, True, BatchStatus.CANCELLED),
    ],
)
def test_status_at_the_end(
    database: Database, batch_id: str, unanswered: int, is_cancelled: bool, status: BatchStatus
) -> None:
    claim = begun(database, batch_id)
    with database.writing() as session:
        assert not should_finish(session, batch_id)
        if is_cancelled:
            cancel_batch(session, "default", batch_id)
    with database.writing() as session:
        assert should_finish(session, batch_id) == is_cancelled
        begin_finalizing(session, claim, batch_id)
        ended = end_batch(session, claim, batch_id, output=None, error=None, unanswered=unanswered)
    assert ended is status
    with database.writing() as session:
        if is_cancelled:
            assert cancel_batch(session, "default", batch_id).status == status
        else:
            with pytest.raises(Conflict):
                cancel_batch(session, "default", batch_id)


def test_batch_that_is_being_written_cannot_be_cancelled(database: Database, batch_id: str) -> None:
    claim = begun(database, batch_id)
    with database.writing() as session:
        begin_finalizing(session, claim, batch_id)
    with pytest.raises(Conflict, match="finalizing"), database.writing() as session:
        cancel_batch(session, "default", batch_id)


def test_window_ends_by_the_clock_of_the_database(database: Database, batch_id: str) -> None:
    begun(database, batch_id)
    with database.writing() as session:
        row(session, batch_id).expires_at -= 86_400
    with database.reading() as session:
        assert should_finish(session, batch_id)


def test_only_batches_without_a_task_fail(database: Database, batch_id: str) -> None:
    with database.writing() as session:
        assert fail_abandoned(session) == []
    claim = begun(database, batch_id)
    with database.writing() as session:
        for _ in range(2):
            assert fail_abandoned(session) == []
        tasks.forget_tasks(session, Task.id == claim.id)
        assert fail_abandoned(session) == [batch_id]
        assert fail_abandoned(session) == []


def test_file_of_an_unfinished_batch_is_kept(database: Database, batch_id: str) -> None:
    with database.writing() as session:
        file_id = row(session, batch_id).input_file_id
        session.scalars(select(File).where(File.id == file_id)).one().expires_at = 1.0
        with pytest.raises(Conflict, match=f"is used by batch {batch_id}"):
            delete_file(session, "default", file_id)
        assert expired_files(session) == []
        cancel_batch(session, "default", batch_id)
        assert expired_files(session) == [("default", file_id)]
        delete_file(session, "default", file_id)
