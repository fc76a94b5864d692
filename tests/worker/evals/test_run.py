"""How a run answers and grades: engines in trouble, model graders, errors of items, stopping."""

import threading
from typing import Any

import pytest

from core.grading.models import EMBEDDER
from core.records.eval_runs import cancel_run
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Task
from core.sandbox.availability import availability
from core.spec.batch import BatchModel
from core.spec.evals import EvalRunStatus
from core.tasks.kinds import Queue
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.worker.evals.runs import (
    EXACT,
    MODELS,
    answered,
    asked,
    attempt_until,
    create,
    items_of,
    run_of,
    sampling,
)
from tests.worker.workshop import TINY, Workshop, wait_until
from worker.answering import journal
from worker.context import Worker
from worker.tasks.desk import TaskDesk


def statuses(workshop: Workshop, run_id: str) -> list[str]:
    return [item.status for item in items_of(workshop, run_id)]


def test_run_without_sampling_asks_no_model(workshop: Workshop, engine: ScriptedEngine) -> None:
    run_id = create(workshop, [*answered("4", "5"), {"item": {"expected": "4"}}])
    assert attempt_until(workshop, None) is None
    assert statuses(workshop, run_id) == ["pass", "fail", "error"]
    assert engine.requests == [] and run_of(workshop, run_id).usage == []
    missing = items_of(workshop, run_id)[2].body["sample"]["error"]
    assert missing["code"] == "no_sample"


def test_requests_run_in_the_background_with_the_parameters_of_the_run(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    params = {"temperature": 0.25, "seed": 7, "max_completion_tokens": 3}
    run_id = create(workshop, asked("hello"), sampled=sampling(params=params))
    assert attempt_until(workshop, None) is None
    [request] = engine.requests
    assert request.background
    assert (request.sampling.temperature, request.sampling.seed) == (0.25, 7)
    [item] = items_of(workshop, run_id)
    assert item.body["sample"]["finish_reason"] == "length"
    assert item.body["sample"]["max_completion_tokens"] == 3
    assert item.status == "fail"


def test_item_whose_model_fails_has_the_error_and_others_their_result(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    rows = [*asked("hello", "fail"), {"item": {"expected": ANSWER}}]
    run_id = create(workshop, rows, sampled=sampling())
    assert attempt_until(workshop, None) is None
    assert statuses(workshop, run_id) == ["pass", "error", "error"]
    _, failed, unasked = (item.body["sample"] for item in items_of(workshop, run_id))
    assert failed["error"]["code"] == "out_of_memory"
    assert failed["input"] == [{"role": "user", "content": "fail"}]
    assert unasked["error"]["code"] == "invalid_item"
    assert run_of(workshop, run_id).status == EvalRunStatus.COMPLETED


@pytest.mark.parametrize("mood", ["full", "stopping", "breaking", "silent"])
def test_engine_in_trouble_is_asked_again(
    workshop: Workshop, engine: ScriptedEngine, mood: Any
) -> None:
    engine.mood = mood
    run_id = create(workshop, asked("hello", "again"), sampled=sampling())

    def recover() -> None:
        wait_until(lambda: len(engine.requests) > 1, "the run has asked")
        engine.mood = "well"

    thread = threading.Thread(target=recover)
    thread.start()
    assert attempt_until(workshop, None) is None
    thread.join()
    assert statuses(workshop, run_id) == ["pass", "pass"]


def test_model_grader_judges_and_its_tokens_are_counted(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    judge = {
        "type": "score_model",
        "name": "judge",
        "model": "tiny",
        "input": [{"role": "user", "content": "Is {{sample.output_text}} right?"}],
    }
    run_id = create(workshop, asked("hello"), EXACT, judge, sampled=sampling())
    assert attempt_until(workshop, None) is None
    [item] = items_of(workshop, run_id)
    exact, judged = item.body["results"]
    assert exact["passed"] and judged["sample"]["input"][0]["content"] == f"Is {ANSWER} right?"
    # the scripted engine answers a sentence, which is no score
    assert judged["error"]["code"] == "model_grader_parse_error" and item.status == "error"
    [usage] = run_of(workshop, run_id).usage
    assert usage["invocation_count"] == 2
    assert run_of(workshop, run_id).criteria_counts[1] == {"passed": 0, "failed": 0}


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_and_vectors_grade_in_a_run(workshop: Workshop, engine: ScriptedEngine) -> None:
    source = (
        "def grade(sample, item):\n    return float(sample['output_text'] == item['expected'])\n"
    )
    python = {"type": "python", "name": "python", "source": source}
    near = {**EXACT, "type": "text_similarity", "name": "near", "evaluation_metric": "cosine"}
    del near["operation"]
    encoder = TINY.model_copy(update={"id": "acme/encoder"})
    models = {**MODELS, EMBEDDER: BatchModel(id=encoder.id, base=encoder, adapter=None)}
    run_id = create(workshop, answered("4", "5"), python, near, models=models)
    assert attempt_until(workshop, None) is None
    first, second = (item.body["results"] for item in items_of(workshop, run_id))
    assert [result["score"] for result in first] == [1.0, pytest.approx(1.0)]
    assert second[0]["score"] == 0.0 and "error" not in second[1]
    assert len(engine.embedded) > 0 and all(each.background for each in engine.embedded)


def test_run_whose_items_are_gone_fails_with_the_reason(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    run_id = create(workshop, answered("4"))
    workshop.store.delete(f"evals/{run_id}")
    assert attempt_until(workshop, None) is None
    run = run_of(workshop, run_id)
    assert run.status == EvalRunStatus.FAILED and run.error is not None


def worker_thread(workshop: Workshop) -> tuple[Worker, threading.Thread]:
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    thread = threading.Thread(target=TaskDesk(worker, Queue.LIGHT).run_next)
    thread.start()
    return worker, thread


def test_canceled_run_stops_soon_and_keeps_its_results(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    run_id = create(workshop, asked("hello", "never end"), sampled=sampling())
    _, thread = worker_thread(workshop)
    wait_until(lambda: run_of(workshop, run_id).passed == 1, "one item has its result")
    with workshop.database.writing() as session:
        cancel_run(session, DEFAULT_PROJECT, run_of(workshop, run_id).eval_id, run_id)
    thread.join(10)
    assert not thread.is_alive()
    assert engine.was_left.wait(10), "the engine goes on with the answer"
    run = run_of(workshop, run_id)
    assert (run.status, run.passed, statuses(workshop, run_id)) == ("canceled", 1, ["pass"])


def test_results_without_requests_are_stored_while_the_run_goes_on(workshop: Workshop) -> None:
    run_id = create(workshop, answered(*["4"] * 5000))
    _, thread = worker_thread(workshop)
    wait_until(lambda: run_of(workshop, run_id).passed > 0, "some items have results")
    with workshop.database.writing() as session:
        run = cancel_run(session, DEFAULT_PROJECT, run_of(workshop, run_id).eval_id, run_id)
    thread.join(10)
    assert not thread.is_alive()
    assert run_of(workshop, run_id).passed == run.passed < 5000


def test_stopping_worker_stores_what_it_has_and_another_continues(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    added: list[object] = []
    add = journal.Journal.add

    def noted(self: journal.Journal, result: Any) -> None:
        add(self, result)
        added.append(result)

    monkeypatch.setattr(journal.Journal, "add", noted)
    run_id = create(workshop, asked(*["hello"] * 4, "never end"), sampled=sampling())
    worker, thread = worker_thread(workshop)
    wait_until(lambda: len(added) == 4, "four items have results, not stored yet")
    worker.stopping.set()
    thread.join()
    run = run_of(workshop, run_id)
    assert (run.status, run.passed) == (EvalRunStatus.IN_PROGRESS, 4)
    with workshop.database.reading() as session:
        [task] = session.query(Task)
        assert (task.attempts, task.claimed_by) == (0, None)
