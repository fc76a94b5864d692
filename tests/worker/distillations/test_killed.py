"""A distillation whose worker is killed at any of its writes: nothing twice, nothing half."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import StaleClaim
from core.records import tasks
from core.records.distillation_progress import TrainingFile, stored_numbers
from core.records.distillations import cancel_distillation
from core.records.projects import DEFAULT_PROJECT
from core.spec.distillation import DistillationStatus
from core.spec.ids import DistillationId
from tests.api.scripted_engine import ANSWER, EXACTLY, ScriptedEngine, prompt_of
from tests.worker.distillations.distilled import (
    EXACT,
    asked,
    attempt_until,
    create,
    files_of,
    forget,
    jobs_of,
    prompts_of,
    row_of,
)
from tests.worker.killed_attempts import points_of
from tests.worker.workshop import Workshop
from worker.answering import journal
from worker.distillations.writing import write_training_file
from worker.tasks import distillation as runner

QUESTIONS = ("hello 0", f"{EXACTLY}no", "be a classifier", "hello 3", "hello 4")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows are stored in small groups."""
    monkeypatch.setattr(journal, "FLUSH_RESULTS", 2)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    yield


def assert_complete(workshop: Workshop, id_: str) -> None:
    """All prompts have one row, and there are one file and one job, which belong together."""
    row = row_of(workshop, id_)
    assert row.status == DistillationStatus.TRAINING and row.error is None
    counts = (row.total, row.answered, row.failed, row.kept, row.dropped, row.rows)
    assert counts == (5, 4, 1, 3, 1, 3)
    assert row.reasons == {"not_a_generator": 1, "grader:exact": 1}
    assert [each["invocation_count"] for each in row.usage] == [4]
    statuses = [each.status for each in prompts_of(workshop, id_)]
    assert statuses == ["kept", "dropped", "failed", "kept", "kept"]
    (job,), (file,) = jobs_of(workshop), files_of(workshop)
    assert (row.job_id, row.training_file, job.training_file) == (job.id, file.id, file.id)
    content = b"".join(workshop.store.read(file.blob_key)).decode()
    rows = [json.loads(line)["messages"] for line in content.splitlines()]
    assert [messages[0]["content"] for messages in rows] == ["hello 0", "hello 3", "hello 4"]
    assert file.report["rows"] == 3 and file.bytes == len(content.encode())


def test_worker_killed_at_any_point_loses_and_doubles_nothing(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    create(workshop, asked(*QUESTIONS), EXACT)
    points = points_of(partial(attempt_until, workshop))
    assert points >= 20
    for point in range(points):
        forget(workshop)
        engine.reset()
        id_ = create(workshop, asked(*QUESTIONS), EXACT)
        if attempt_until(workshop, point) is not None:
            with workshop.database.reading() as session:
                stored = stored_numbers(session, id_)
            before = Counter(prompt_of(request)[0] for request in engine.requests)
            assert attempt_until(workshop, None) is None
            after = Counter(prompt_of(request)[0] for request in engine.requests)
            for number in stored:
                assert after[QUESTIONS[number]] == before[QUESTIONS[number]]
        assert_complete(workshop, id_)


@given(points=st.lists(st.integers(0, 21), max_size=4))
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_worker_killed_again_and_again(
    workshop: Workshop, engine: ScriptedEngine, points: list[int]
) -> None:
    forget(workshop)
    id_ = create(workshop, asked(*QUESTIONS), EXACT)
    for point in (*points, None):
        if attempt_until(workshop, point) is None:
            break
    assert_complete(workshop, id_)


def test_a_failed_distillation_ends_once_whenever_it_is_killed(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    questions = ("hello", "be a classifier")
    create(workshop, asked(*questions), max_failed_share=0.0)
    for point in range(points_of(partial(attempt_until, workshop))):
        forget(workshop)
        id_ = create(workshop, asked(*questions), max_failed_share=0.0)
        if attempt_until(workshop, point) is not None:
            assert attempt_until(workshop, None) is None
        row = row_of(workshop, id_)
        assert (row.status, row.error and row.error["code"]) == ("failed", "too_many_failures")
        assert jobs_of(workshop) == files_of(workshop) == []
        assert ANSWER in [
            each.message["content"]
            for prompt in prompts_of(workshop, id_)
            for each in prompt.candidates
            if each.message is not None
        ]


def test_an_attempt_that_lost_its_claim_deletes_only_a_file_that_nobody_records(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writing_then(lose_claim: Callable[[], None]) -> str:
        """Work until the training file is written, lose the claim, and return its key."""

        def write(*arguments: Any) -> TrainingFile:
            monkeypatch.undo()
            file = write_training_file(*arguments)
            keys.append(file.key)
            lose_claim()
            return file

        keys: list[str] = []
        monkeypatch.setattr(runner, "write_training_file", write)
        with pytest.raises(StaleClaim):
            attempt_until(workshop, None)
        return keys[0]

    def cancel() -> None:
        with workshop.database.writing() as session:
            cancel_distillation(session, DEFAULT_PROJECT, DistillationId(id_))

    def lose_to_another() -> None:
        with workshop.database.writing() as session:
            tasks.rescue_expired(session, worker_id="worker-victim")
        assert attempt_until(workshop, None) is None

    id_ = create(workshop, asked("hello"))
    assert not workshop.store.exists(writing_then(cancel))
    assert (row_of(workshop, id_).status, jobs_of(workshop)) == ("cancelled", [])
    id_ = create(workshop, asked("hello"))
    assert workshop.store.exists(writing_then(lose_to_another))
    assert (row_of(workshop, id_).status, len(jobs_of(workshop))) == ("training", 1)
