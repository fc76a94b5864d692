"""Comparisons of models over HTTP: what is refused, and the table of one that ends."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records.comparisons import store_answers
from core.records.tasks import claim_next, release
from core.spec.comparison import ComparedAnswer, ComparedItem, ComparisonProgress
from core.spec.held_out import Question
from core.spec.verdict import Answer
from tests.api import as_worker
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine

ROUTE = "/v1/fine_tuning/comparisons"
ROWS = b"".join(
    json.dumps({"prompt": f"question {number}", "completion": ANSWER}).encode() + b"\n"
    for number in range(8)
)
LENGTH = {
    "type": "string_check",
    "name": "has answer",
    "input": "{{sample.output_text}}",
    "reference": "forty-two",
    "operation": "like",
}


def wait_for_end(client: httpx.Client, comparison_id: str) -> dict[str, Any]:
    for _ in range(600):
        found: dict[str, Any] = client.get(f"{ROUTE}/{comparison_id}").json()
        if found["status"] in ("succeeded", "failed"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


def test_models_answer_the_rows_of_a_file_and_are_compared(
    api: Api,
    client: httpx.Client,
    engine: ScriptedEngine,
    upload: Callable[..., str],
    tuned: str,
) -> None:
    body = {"models": ["tiny", tuned], "file": upload(ROWS), "graders": [LENGTH], "samples": 6}
    created = client.post(ROUTE, json=body).json()
    assert created["object"] == "fine_tuning.comparison"
    assert (created["status"], created["models"]) == ("queued", ["tunesmith/tiny", tuned])
    assert (created["total"], created["items"], created["scores"]) == (None, [], [])
    with light_worker_of(api):
        found = wait_for_end(client, created["id"])
    assert (found["status"], found["error"]) == ("succeeded", None), found
    assert (found["completed"], found["total"], len(found["items"])) == (6, 6, 6)
    assert [each["model"] for each in found["scores"]] == ["tunesmith/tiny", tuned]
    for each in found["scores"]:
        assert each["rows"] == 6
        assert each["scores"]["exact_match"] == each["scores"]["has answer"] == 1
    (difference,) = found["differences"]
    assert (difference["model"], difference["than"]) == (tuned, "tunesmith/tiny")
    by_name = {metric["name"]: metric for metric in difference["metrics"]}
    assert by_name["exact_match"]["interval"] == [0, 0]
    item = found["items"][0]
    assert item["question"]["reference"] == ANSWER
    assert [answer["answer"]["text"] for answer in item["answers"]] == [ANSWER, ANSWER]
    assert len(engine.requests) == 12 and all(each.background for each in engine.requests)


def test_answers_that_were_stored_are_not_asked_again(
    api: Api, client: httpx.Client, engine: ScriptedEngine, upload: Callable[..., str], tuned: str
) -> None:
    body = {"models": ["tiny", tuned], "file": upload(ROWS), "samples": 8}
    comparison_id = client.post(ROUTE, json=body).json()["id"]
    answers = (ComparedAnswer(answer=Answer(text="from before"), scores={"exact_match": 0}),) * 2
    items = tuple(
        ComparedItem(question=Question(line=line, text="?", reference="x"), answers=answers)
        for line in (1, 2, 3)
    )
    with api.database.writing() as session:
        claim = claim_next(session, "worker-killed", ["comparison"])
        assert claim is not None
        store_answers(session, claim, ComparisonProgress(items=items, total=8))
        release(session, claim)
    with light_worker_of(api):
        found = wait_for_end(client, comparison_id)
    assert found["completed"] == 8 and len(engine.requests) == 2 * 5
    texts = [item["answers"][0]["answer"]["text"] for item in found["items"]]
    assert texts == ["from before"] * 3 + [ANSWER] * 5


def test_file_of_a_comparison_is_kept_until_its_end(
    api: Api, client: httpx.Client, upload: Callable[..., str], tuned: str
) -> None:
    file_id = upload(ROWS)
    body = {"models": ["tiny", tuned], "file": file_id, "samples": 1}
    comparison_id = client.post(ROUTE, json=body).json()["id"]
    refused = client.delete(f"/v1/files/{file_id}")
    assert refused.json()["error"]["code"] == "file_in_use"
    assert comparison_id in refused.json()["error"]["message"]
    with light_worker_of(api):
        wait_for_end(client, comparison_id)
    assert client.delete(f"/v1/files/{file_id}").status_code == 200


def test_rows_that_are_too_long_are_left_out_and_counted(
    api: Api, client: httpx.Client, upload: Callable[..., str], tuned: str
) -> None:
    long = {"prompt": "x" * 70_000, "completion": "y"}
    file_id = upload(ROWS + json.dumps(long).encode() + b"\n")
    body = {"models": ["tiny", tuned], "file": file_id, "samples": 500}
    comparison_id = client.post(ROUTE, json=body).json()["id"]
    with light_worker_of(api):
        found = wait_for_end(client, comparison_id)
    assert (found["completed"], found["omitted"]) == (ROWS.count(b"\n"), 1)


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"models": ["tiny"]}, "models", 400),
        ({"models": ["tiny", "tunesmith/tiny"]}, "models[1]", 400),
        ({"models": ["tiny", "no/such"]}, "models[1]", 404),
        ({"models": ["tiny", "ft:tiny:default::none"]}, "models[1]", 404),
        ({"file": "file-none"}, "file", 404),
        ({"samples": 501}, "samples", 400),
        ({"max_tokens": 0}, "max_tokens", 400),
        ({"graders": [LENGTH, LENGTH]}, "graders[1].name", 400),
        ({"graders": [LENGTH | {"name": "rouge_l"}]}, "graders[0].name", 400),
        ({"graders": [LENGTH | {"input": "{{nothing}}"}]}, "graders[0].input", 400),
        ({"color": "blue"}, "color", 400),
    ],
)
def test_comparisons_that_cannot_work_are_refused(
    client: httpx.Client, dataset: str, tuned: str, change: dict[str, Any], param: str, status: int
) -> None:
    body = {"models": ["tiny", tuned], "file": dataset} | change
    answer = client.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_plain_texts_and_unknown_comparisons(
    client: httpx.Client, upload: Callable[..., str], tuned: str
) -> None:
    texts = b"".join(b'{"text": "only a text %d"}\n' % number for number in range(3))
    answer = client.post(ROUTE, json={"models": ["tiny", tuned], "file": upload(texts)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert client.get(f"{ROUTE}/ftcompare-none").status_code == 404
