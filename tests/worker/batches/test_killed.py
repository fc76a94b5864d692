"""A batch whose worker is killed, at any of its writes: no line is lost, none is doubled."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from core.records import batch_progress
from core.records.tables import Batch, BatchPart, Task
from core.spec.batch import BatchStatus
from tests.api.batch_files import chat_line
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.batches.killed import attempt_until, create, ids_in, row
from tests.worker.killed_attempts import points_of
from tests.worker.workshop import Workshop
from worker import housekeeping
from worker.batches import journal

LINES = [chat_line(n, "be a classifier" if n % 4 == 3 else "hello") for n in range(9)]
PART_LINES = 3


@pytest.fixture
def workshop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A workshop with an engine; a part is stored after a few lines, in any order of answers."""
    monkeypatch.setattr(journal, "FLUSH_LINES", PART_LINES)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    engine = ScriptedEngine()
    with serve(engine.app) as url:
        workshop.engine_at(url)
        yield workshop


def assert_each_line_once(workshop: Workshop, batch_id: str) -> None:
    batch = row(workshop, batch_id)
    assert batch.status == BatchStatus.COMPLETED
    output = ids_in(workshop, batch.output_file_id)
    error = ids_in(workshop, batch.error_file_id)
    assert output + error == Counter(line["custom_id"] for line in LINES)
    assert (batch.completed, batch.failed) == (output.total(), error.total()) == (7, 2)


def forget(workshop: Workshop) -> None:
    with workshop.database.writing() as session:
        for table in (BatchPart, Batch, Task):
            session.execute(delete(table))


def test_worker_killed_at_any_point_loses_and_doubles_nothing(workshop: Workshop) -> None:
    create(workshop, LINES)
    points = points_of(partial(attempt_until, workshop))
    assert points > 20
    for point in range(points):
        forget(workshop)
        batch_id = create(workshop, LINES)
        if attempt_until(workshop, point) is not None:
            assert attempt_until(workshop, None) is None
        assert_each_line_once(workshop, batch_id)


@given(points=st.lists(st.integers(0, 24), max_size=6))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_worker_killed_again_and_again(workshop: Workshop, points: list[int]) -> None:
    forget(workshop)
    batch_id = create(workshop, LINES)
    for point in (*points, None):
        if attempt_until(workshop, point) is None:
            break
    assert_each_line_once(workshop, batch_id)


def test_parts_are_deleted_after_the_end_only(workshop: Workshop) -> None:
    batch_id = create(workshop, LINES)
    assert attempt_until(workshop, 9) is not None
    parts = workshop.blobs("batches")
    housekeeping.delete_batch_parts(workshop.database, workshop.store)
    assert workshop.blobs("batches") == parts != set()
    assert attempt_until(workshop, None) is None
    housekeeping.delete_batch_parts(workshop.database, workshop.store)
    assert_each_line_once(workshop, batch_id)
    with workshop.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(BatchPart)) == 0
        assert batch_progress.left_by_ended_batches(session) == []


def test_batch_fails_with_its_task(workshop: Workshop) -> None:
    batch_id = create(workshop, LINES)
    housekeeping.fail_abandoned_batches(workshop.database)
    assert row(workshop, batch_id).status == BatchStatus.VALIDATING
    with workshop.database.writing() as session:
        session.execute(delete(Task))
    housekeeping.fail_abandoned_batches(workshop.database)
    batch = row(workshop, batch_id)
    assert batch.status == BatchStatus.FAILED and batch.finished_at is not None
    assert batch.errors is not None and batch.errors[0]["code"] == "worker_lost"
