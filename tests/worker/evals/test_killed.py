"""A run whose worker is killed, at any of its writes: no item is lost, none has two results."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.spec.evals import EvalRunStatus
from tests.api.live import serve
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.worker.evals.runs import (
    attempt_until,
    create,
    forget,
    items_of,
    run_of,
    sampling,
)
from tests.worker.killed_attempts import points_of
from tests.worker.workshop import Workshop
from worker.answering import journal

ITEMS = 5

ROWS: list[dict[str, Any]] = [
    {"item": {"question": "be a classifier" if n % 3 == 2 else f"hello {n}", "expected": ANSWER}}
    for n in range(ITEMS)
]


@pytest.fixture
def workshop(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """A workshop with an engine; results are stored in small groups."""
    monkeypatch.setattr(journal, "FLUSH_RESULTS", 2)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    engine = ScriptedEngine()
    with serve(engine.app) as url:
        workshop.engine_at(url)
        yield workshop


def assert_each_item_once(workshop: Workshop, run_id: str) -> None:
    run = run_of(workshop, run_id)
    assert run.status == EvalRunStatus.COMPLETED and run.finished_at is not None
    items = items_of(workshop, run_id)
    assert [item.number for item in items] == list(range(ITEMS))
    statuses = ["error" if n % 3 == 2 else "pass" for n in range(ITEMS)]
    assert [item.status for item in items] == statuses
    assert (run.passed, run.failed, run.errored) == (4, 0, 1)
    assert run.criteria_counts == [{"passed": 4, "failed": 0}]
    assert [each["invocation_count"] for each in run.usage] == [4]


def test_worker_killed_at_any_point_loses_and_doubles_nothing(workshop: Workshop) -> None:
    create(workshop, ROWS, sampled=sampling())
    points = points_of(partial(attempt_until, workshop))
    assert points >= 10
    for point in range(points):
        forget(workshop)
        run_id = create(workshop, ROWS, sampled=sampling())
        if attempt_until(workshop, point) is not None:
            assert attempt_until(workshop, None) is None
        assert_each_item_once(workshop, run_id)


@given(points=st.lists(st.integers(0, 11), max_size=4))
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_worker_killed_again_and_again(workshop: Workshop, points: list[int]) -> None:
    forget(workshop)
    run_id = create(workshop, ROWS, sampled=sampling())
    for point in (*points, None):
        if attempt_until(workshop, point) is None:
            break
    assert_each_item_once(workshop, run_id)
