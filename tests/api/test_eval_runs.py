"""Runs of evals over HTTP: every kind of data source, what is refused, cancellation."""

from functools import partial
from typing import Any

import httpx
import pytest

from core.catalog.external import Endpoints, ExternalEndpoint
from core.records.tables import EvalRun, Task
from tests.api.evaluating import (
    EXACT,
    Create,
    completions,
    content,
    create_eval,
    finished,
    items,
    jsonl,
    refusal,
    rows,
    start,
    upload,
)
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine


@pytest.fixture
def create(client: httpx.Client) -> Create:
    """`create(name="a")` creates an eval."""
    return partial(create_eval, client)


def test_run_grades_the_answers_of_its_rows(
    api: Api, client: httpx.Client, create: Create, engine: ScriptedEngine
) -> None:
    eval_ = create(testing_criteria=[EXACT, EXACT])
    given = rows("a", "b", sample=ANSWER) + rows("c", sample="No.")
    run = start(client, eval_["id"], jsonl(*given), name="first", metadata={"k": "v"})
    assert run["status"] == "queued" and run["result_counts"]["total"] == 3
    assert run["data_source"] == jsonl(*given) and run["model"] == ""
    run = finished(api, client, run)
    assert run["status"] == "completed" and run["error"] is None
    assert run["result_counts"] == {"total": 3, "errored": 0, "failed": 1, "passed": 2}
    assert run["per_testing_criteria_results"] == [
        {"testing_criteria": "exact", "passed": 2, "failed": 1},
        {"testing_criteria": "exact (2)", "passed": 2, "failed": 1},
    ]
    assert (run["name"], run["metadata"], run["per_model_usage"]) == ("first", {"k": "v"}, [])
    assert engine.requests == []
    [failed] = items(client, run, status="fail")
    assert failed["datasource_item_id"] == 2 and failed["datasource_item"] == given[2]["item"]
    assert [result["name"] for result in failed["results"]] == ["exact", "exact (2)"]
    assert [len(items(client, run, status=status)) for status in ("pass", "error")] == [2, 0]
    path = f"/v1/evals/{eval_['id']}/runs/{run['id']}/output_items/{failed['id']}"
    assert client.get(path).json() == failed


def test_run_samples_a_model(
    api: Api, client: httpx.Client, create: Create, engine: ScriptedEngine
) -> None:
    eval_ = create()
    params = {"temperature": 0.0, "max_completion_tokens": 50}
    source = completions(content(*rows("hello", "fail")), sampling_params=params)
    run = finished(api, client, start(client, eval_["id"], source))
    assert run["model"] == "tunesmith/tiny"
    assert run["result_counts"] == {"total": 2, "errored": 1, "failed": 0, "passed": 1}
    [usage] = run["per_model_usage"]
    assert usage["model_name"] == "tunesmith/tiny" and usage["invocation_count"] == 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    [good] = items(client, run, status="pass")
    assert good["sample"]["input"] == [{"role": "user", "content": "hello"}]
    assert good["sample"]["output"] == [{"role": "assistant", "content": ANSWER}]
    assert (good["sample"]["seed"], good["sample"]["temperature"]) == (42, 0.0)
    [bad] = items(client, run, status="error")
    assert bad["sample"]["error"]["code"] == "out_of_memory" and bad["results"] == []
    assert all(request.background for request in engine.requests)


def test_run_samples_responses_with_tools_of_their_form(
    api: Api, client: httpx.Client, create: Create, engine: ScriptedEngine
) -> None:
    criterion = {**EXACT, "input": "{{sample.output_tools[0].function.name}}", "reference": "add"}
    eval_ = create(testing_criteria=[criterion])
    tool = {"type": "function", "name": "add", "parameters": {}, "strict": False}
    source = completions(
        content(*rows("call twice")), type="responses", sampling_params={"tools": [tool]}
    )
    run = finished(api, client, start(client, eval_["id"], source))
    assert run["result_counts"]["passed"] == 1, items(client, run)
    assert client.get("/v1/responses/resp_none").status_code == 404


def test_run_reads_a_file_which_is_kept_until_its_end(
    api: Api, client: httpx.Client, create: Create
) -> None:
    file = upload(client, rows("a", "b", sample=ANSWER))
    assert (file["purpose"], file["status"]) == ("evals", "processed")
    report = client.get(f"/v1/files/{file['id']}/report").json()
    assert (report["rows"], report["fields"]) == (2, ["question", "expected"])
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file["id"]}}
    run = start(client, create()["id"], source)
    assert run["data_source"] == source
    in_use = client.delete(f"/v1/files/{file['id']}")
    assert in_use.json()["error"]["code"] == "file_in_use"
    run = finished(api, client, run)
    assert run["result_counts"]["passed"] == 2
    assert client.delete(f"/v1/files/{file['id']}").status_code == 200
    assert len(items(client, run)) == 2


@pytest.mark.parametrize(
    ("source", "param"),
    [
        (jsonl({"item": {"expected": "a"}, "sample": {"output_text": ""}}), "data_source.source"),
        (jsonl(*rows("no answer")), "data_source.source"),
        (jsonl(*rows("half of a pair: \ud83d", sample="a")), "data_source.source"),
        ({"type": "jsonl", "source": content()}, "data_source.source.content"),
        (jsonl({"sample": {}}), "data_source.source.content[0].item"),
        (completions(content(*rows("a")), model="tunesmith/nothing"), "data_source.model"),
        (completions(content(*rows("a")), model=None), "data_source.model"),
        (
            completions(content(*rows("a")), input_messages=None),
            "data_source.input_messages",
        ),
        (
            completions(content(*rows("a")), sampling_params={"temperature": 9.0}),
            "data_source.sampling_params.temperature",
        ),
        (
            completions(content(*rows("a")), sampling_params={"top_k": 1}),
            "data_source.sampling_params.top_k",
        ),
        (
            completions(
                content(*rows("a")),
                input_messages={"type": "item_reference", "item_reference": "question"},
            ),
            "data_source.input_messages.item_reference",
        ),
        (completions({"type": "stored_completions"}), "data_source.source"),
        ({"type": "guess"}, "data_source.type"),
    ],
)
def test_wrong_run_is_refused_with_the_field(
    api: Api, client: httpx.Client, create: Create, source: dict[str, Any], param: str
) -> None:
    path = f"/v1/evals/{create()['id']}/runs"
    status, error = refusal(client, path, {"data_source": source})
    assert (status, error["param"]) == (404 if "model" in error["code"] else 400, param)
    with api.database.reading() as session:
        assert session.query(EvalRun).count() == session.query(Task).count() == 0
    assert not list((api.folder / "storage" / "evals").glob("*"))


def test_model_of_a_grader_is_resolved_when_the_run_is_created(
    client: httpx.Client, create: Create
) -> None:
    judge = {
        "type": "label_model",
        "name": "judge",
        "model": "tunesmith/nothing",
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
    }
    eval_id = create(testing_criteria=[EXACT, judge])["id"]
    body = {"data_source": jsonl(*rows("a", sample="b"))}
    status, error = refusal(client, f"/v1/evals/{eval_id}/runs", body)
    assert (status, error["param"]) == (404, "testing_criteria[1].model")


def test_external_model_is_named_by_its_endpoint(
    api: Api, client: httpx.Client, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ExternalEndpoint(name="cloud", base_url="http://127.0.0.1:9/v1")
    monkeypatch.setattr(api.state.endpoints, "_by_name", Endpoints([endpoint])._by_name)
    source = completions(content(*rows("a")), model="cloud/gpt-x")
    run = start(client, create()["id"], source)
    assert run["model"] == "cloud/gpt-x"
    path = f"/v1/evals/{run['eval_id']}/runs"
    status, _ = refusal(client, path, {"data_source": source | {"model": "mist/gpt-x"}})
    assert status == 404


def test_canceled_run_keeps_its_results_and_can_be_deleted(
    api: Api, client: httpx.Client, create: Create
) -> None:
    run = start(client, create()["id"], jsonl(*rows("a", sample="b")))
    path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}"
    for _ in range(2):
        canceled = client.post(path).json()
        assert canceled["status"] == "canceled"
    listed = client.get(f"/v1/evals/{run['eval_id']}/runs?status=canceled").json()["data"]
    assert listed == [canceled]
    assert client.get(f"/v1/evals/{run['eval_id']}/runs?status=queued").json()["data"] == []
    deleted = client.delete(path).json()
    assert deleted == {"object": "eval.run.deleted", "deleted": True, "run_id": run["id"]}
    assert client.get(path).status_code == 404
    assert not list((api.folder / "storage" / "evals").glob("*"))


def test_completed_run_cannot_be_canceled(api: Api, client: httpx.Client, create: Create) -> None:
    run = finished(api, client, start(client, create()["id"], jsonl(*rows("a", sample="b"))))
    assert client.post(f"/v1/evals/{run['eval_id']}/runs/{run['id']}").status_code == 409
