"""Evals over HTTP: their life, what is refused, the report, the stock client."""

import csv
import io
import time
from functools import partial
from typing import Any

import httpx
import pytest
from openai import OpenAI

from core.records.tables import Eval, EvalRun, EvalRunItem, Task
from tests.api.evaluating import (
    CONFIG,
    EXACT,
    SCHEMA,
    Create,
    completions,
    content,
    create_eval,
    finished,
    jsonl,
    refusal,
    rows,
    start,
    upload,
)
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER


@pytest.fixture
def create(client: httpx.Client) -> Create:
    """`create(name="a")` creates an eval."""
    return partial(create_eval, client)


def test_eval_is_created_changed_listed_and_deleted(client: httpx.Client, create: Create) -> None:
    first = create(name="math", metadata={"team": "red"})
    assert first["id"].startswith("eval_") and first["object"] == "eval"
    schema = first["data_source_config"]["schema"]
    assert schema["properties"]["item"] == SCHEMA
    assert schema["required"] == ["item", "sample"]
    assert first["testing_criteria"] == [EXACT]
    second = create()
    assert second["name"] == second["id"]
    listed = client.get("/v1/evals").json()
    assert [each["id"] for each in listed["data"]] == [first["id"], second["id"]]
    changed = client.post(f"/v1/evals/{first['id']}", json={"name": "sums", "metadata": None})
    assert (changed.json()["name"], changed.json()["metadata"]) == ("sums", None)
    newest = client.get("/v1/evals?order=desc&order_by=updated_at&limit=1").json()
    assert newest["data"] == [changed.json()] and newest["has_more"]
    deleted = client.delete(f"/v1/evals/{first['id']}").json()
    assert deleted == {"object": "eval.deleted", "deleted": True, "eval_id": first["id"]}
    assert client.get(f"/v1/evals/{first['id']}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"testing_criteria": []}, "testing_criteria"),
        ({"testing_criteria": [{**EXACT, "operation": "same"}]}, "testing_criteria[0].operation"),
        ({"testing_criteria": [EXACT, {"type": "guess"}]}, "testing_criteria[1].type"),
        ({"testing_criteria": [{**EXACT, "input": "{{x}}"}]}, "testing_criteria[0].input"),
        ({"data_source_config": {"type": "custom"}}, "data_source_config.item_schema"),
        (
            {"data_source_config": {**CONFIG, "item_schema": {"type": "text"}}},
            "data_source_config.item_schema",
        ),
        (
            {"data_source_config": {**CONFIG, "item_schema": {"enum": ["a" * 70_000]}}},
            "data_source_config.item_schema",
        ),
        (
            {"data_source_config": {**CONFIG, "include_sample_schema": 1}},
            "data_source_config.include_sample_schema",
        ),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"share_with_openai": True}, "share_with_openai"),
    ],
)
def test_wrong_eval_is_refused_with_the_field(
    client: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    body = {"data_source_config": CONFIG, "testing_criteria": [EXACT]} | changes
    status, error = refusal(client, "/v1/evals", body)
    assert (status, error["param"]) == (400, param)


def test_answer_that_the_eval_does_not_expect_is_told_with_the_fix(client: httpx.Client) -> None:
    config = {"type": "custom", "item_schema": SCHEMA}
    body = {"data_source_config": config, "testing_criteria": [EXACT]}
    _, error = refusal(client, "/v1/evals", body)
    assert error["param"] == "testing_criteria[0].input"
    assert "set data_source_config.include_sample_schema to true" in error["message"]


def test_faulty_file_is_stored_and_refused_for_a_run(client: httpx.Client, create: Create) -> None:
    file = upload(client, [*rows("a"), {"question": "b"}])
    assert file["status"] == "error"
    assert 'line 2: item is missing; write each row as {"item": {…}}' in file["status_details"]
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file["id"]}}
    eval_id = create()["id"]
    path = f"/v1/evals/{eval_id}/runs"
    status, error = refusal(client, path, {"data_source": source})
    assert (status, error["code"]) == (400, "invalid_eval_file") and "line 2" in error["message"]
    other = upload(client, [{"messages": []}], purpose="fine-tune")
    source["source"] = {"type": "file_id", "id": other["id"]}
    _, error = refusal(client, path, {"data_source": source})
    assert error["code"] == "invalid_file_purpose"
    source["source"] = {"type": "file_id", "id": "file-none"}
    status, error = refusal(client, path, {"data_source": source})
    assert (status, error["param"]) == (404, "data_source.source.id")


def test_deleted_eval_takes_its_running_run(api: Api, client: httpx.Client, create: Create) -> None:
    run = start(client, create()["id"], completions(content(*rows("never end"))))
    path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}"
    with light_worker_of(api):
        while client.get(path).json()["status"] != "in_progress":
            time.sleep(0.02)
        assert client.delete(f"/v1/evals/{run['eval_id']}").status_code == 200
    with api.database.reading() as session:
        for table in (Eval, EvalRun, EvalRunItem, Task):
            assert session.query(table).count() == 0


def test_report_is_a_line_per_item(api: Api, client: httpx.Client, create: Create) -> None:
    hostile = '=HYPERLINK("http://x")'
    given = [*rows("a", sample=ANSWER), *rows(hostile, sample="-1")]
    run = finished(api, client, start(client, create()["id"], jsonl(*given)))
    assert run["report_url"].startswith(api.url)
    answer = client.get(run["report_url"])
    assert answer.headers["content-type"].startswith("text/csv")
    assert f'filename="{run["id"]}.csv"' in answer.headers["content-disposition"]
    first, second = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert (first["item.question"], first["exact.passed"]) == ("a", "true")
    assert (second["item.question"], second["output_text"]) == ("'" + hostile, "'-1")
    assert second["status"] == "fail"


def test_page_of_large_runs_ends_early_and_the_next_goes_on(
    client: httpx.Client, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.records.pages.PAGE_BYTES", 1000)
    eval_id = create()["id"]
    large = jsonl(*rows("a" * 2000, sample="b"))
    ids = [start(client, eval_id, large)["id"] for _ in range(3)]
    path = f"/v1/evals/{eval_id}/runs"
    page = client.get(path).json()
    assert [run["id"] for run in page["data"]] == ids[:1] and page["has_more"]
    page = client.get(path, params={"after": ids[1]}).json()
    assert [run["id"] for run in page["data"]] == ids[2:] and not page["has_more"]


def test_stock_client_needs_no_change(api: Api, client: httpx.Client) -> None:
    openai = OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0)
    eval_ = openai.evals.create(
        name="math", data_source_config=CONFIG, testing_criteria=[EXACT], metadata={"a": "b"}
    )
    assert openai.evals.retrieve(eval_.id).to_dict() == eval_.to_dict()
    assert openai.evals.update(eval_.id, name="sums").name == "sums"
    others = [
        openai.evals.create(data_source_config=CONFIG, testing_criteria=[EXACT]).id
        for _ in range(4)
    ]
    assert [each.id for each in openai.evals.list(limit=2)] == [eval_.id, *others]
    run = openai.evals.runs.create(eval_.id, data_source=jsonl(*rows(*"abcde", sample=ANSWER)))
    second = openai.evals.runs.create(eval_.id, data_source=completions(content(*rows("hi"))))
    assert openai.evals.runs.cancel(second.id, eval_id=eval_.id).status == "canceled"
    finished(api, client, {"id": run.id, "eval_id": eval_.id})
    run = openai.evals.runs.retrieve(run.id, eval_id=eval_.id)
    assert (run.status, run.result_counts.passed) == ("completed", 5)
    assert [each.id for each in openai.evals.runs.list(eval_.id, limit=1)] == [run.id, second.id]
    found = list(openai.evals.runs.output_items.list(run.id, eval_id=eval_.id, limit=2))
    assert [item.datasource_item_id for item in found] == [0, 1, 2, 3, 4]
    one = openai.evals.runs.output_items.retrieve(found[3].id, eval_id=eval_.id, run_id=run.id)
    assert one.to_dict() == found[3].to_dict() and one.results[0].passed
    assert openai.evals.runs.delete(second.id, eval_id=eval_.id).deleted
    assert openai.evals.delete(eval_.id).deleted
