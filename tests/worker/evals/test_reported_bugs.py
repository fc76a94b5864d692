"""Reported faults of other evaluation services, tried here."""

import threading
from typing import Any

import pytest

from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.worker.evals.runs import asked, attempt_until, create, items_of, run_of, sampling
from tests.worker.workshop import Workshop, wait_until
from worker.answering import journal

JUDGE: dict[str, Any] = {
    "type": "label_model",
    "name": "judge",
    "model": "tiny",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}


def test_judge_whose_connection_breaks_is_asked_again(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    """Azure/azure-sdk-for-python 46627: a lost connection left a score of null."""
    engine.mood = "breaking"
    rows = [{"item": {}, "sample": {"output_text": "answer in json"}}]
    run_id = create(workshop, rows, JUDGE)

    def recover() -> None:
        wait_until(lambda: len(engine.requests) > 0, "the judge is asked")
        engine.mood = "well"

    thread = threading.Thread(target=recover)
    thread.start()
    assert attempt_until(workshop, None) is None
    thread.join()
    [result] = items_of(workshop, run_id)[0].body["results"]
    assert len(engine.requests) > 1
    assert result["sample"]["output"][0]["content"] == '{"value": 42}'  # it has answered


def test_one_item_in_trouble_does_not_stop_the_run(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    """UKGovernmentBEIS/inspect_ai 1554: an error of one request interrupted 120,000 samples.

    confident-ai/deepeval 915: all later items had the error, too. UKGovernmentBEIS/inspect_ai 4412,
    FrontierCS/Frontier-CS 161: items with errors were left out of the counts.
    """
    run_id = create(workshop, asked("fail", *["hello"] * 40, "stop short"), sampled=sampling())
    assert attempt_until(workshop, None) is None
    statuses = [item.status for item in items_of(workshop, run_id)]
    assert statuses == ["error", *["pass"] * 40, "error"]
    run = run_of(workshop, run_id)
    assert (run.passed, run.failed, run.errored) == (40, 0, 2)


def test_results_of_every_attempt_count(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UKGovernmentBEIS/inspect_ai 5213, UiPath/uipath-python 1176: after two interruptions, results
    of the first attempt were made again, or were there twice."""
    monkeypatch.setattr(journal, "FLUSH_RESULTS", 2)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1000.0)
    run_id = create(workshop, asked(*["hello"] * 8), sampled=sampling())
    assert attempt_until(workshop, 4) is not None
    first = {item.number: item.id for item in items_of(workshop, run_id)}
    assert 0 < len(first) < 8
    assert attempt_until(workshop, 3) is not None
    assert attempt_until(workshop, None) is None
    found = {item.number: item.id for item in items_of(workshop, run_id)}
    assert first.items() <= found.items() and len(found) == 8
    assert run_of(workshop, run_id).passed == 8


def test_braces_of_json_in_a_prompt_are_kept(workshop: Workshop, engine: ScriptedEngine) -> None:
    """UKGovernmentBEIS/inspect_ai 5256, 5276: JSON in a prompt was rewritten, or a KeyError."""
    example = 'Answer as {"grade": "C", "why": {"a": 1}} or {x}.'
    template = {"type": "template", "template": [{"role": "user", "content": example}]}
    run_id = create(
        workshop, [{"item": {"expected": ANSWER}}], sampled=sampling(input_messages=template)
    )
    assert attempt_until(workshop, None) is None
    [item] = items_of(workshop, run_id)
    assert item.body["sample"]["input"] == [{"role": "user", "content": example}]
