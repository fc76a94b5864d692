"""Evals over HTTP: their life, what is refused, runs of every kind, the report."""

import csv
import io
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import OpenAI

from core.catalog.external import Endpoints, ExternalEndpoint
from core.records.tables import Eval, EvalRun, EvalRunItem, Task
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "expected": {"type": "string"}},
    "required": ["question"],
}
CONFIG = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.expected }}",
    "operation": "eq",
}
TEMPLATE = {"type": "template", "template": [{"role": "user", "content": "{{item.question}}"}]}
WAIT_SECONDS = 60

Create = Callable[..., dict[str, Any]]


@pytest.fixture
def create(client: httpx.Client) -> Create:
    """`create(name="a")` creates an eval."""

    def create(**changes: Any) -> dict[str, Any]:
        body = {"data_source_config": CONFIG, "testing_criteria": [EXACT]} | changes
        answer = client.post("/v1/evals", json=body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    return create


def rows(*questions: str, sample: str | None = None) -> list[dict[str, Any]]:
    extra = {} if sample is None else {"sample": {"output_text": sample}}
    return [{"item": {"question": each, "expected": ANSWER}, **extra} for each in questions]


def content(*given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "file_content", "content": list(given)}


def jsonl(*given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "jsonl", "source": content(*given)}


def completions(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    good = {"type": "completions", "model": "tunesmith/tiny", "input_messages": TEMPLATE}
    return good | {"source": source} | changes


def start(client: httpx.Client, eval_id: str, source: dict[str, Any], **body: Any) -> Any:
    answer = client.post(f"/v1/evals/{eval_id}/runs", json={"data_source": source} | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def finished(api: Api, client: httpx.Client, run: dict[str, Any]) -> Any:
    """Let a worker work until the run has ended; return the run."""
    path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}"
    deadline = time.monotonic() + WAIT_SECONDS
    with light_worker_of(api):
        while (found := client.get(path).json())["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
    return found


def items(client: httpx.Client, run: dict[str, Any], **query: str) -> Any:
    path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}/output_items"
    return client.get(path, params=query).json()["data"]


def upload(client: httpx.Client, lines: list[Any], purpose: str = "evals") -> Any:
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    answer = client.post(
        "/v1/files", data={"purpose": purpose}, files={"file": ("items.jsonl", text)}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: httpx.Client, path: str, body: object) -> tuple[int, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.json()["error"]


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


@pytest.mark.parametrize(
    ("source", "param"),
    [
        (jsonl({"item": {"expected": "a"}, "sample": {"output_text": ""}}), "data_source.source"),
        (jsonl(*rows("no answer")), "data_source.source"),
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
    monkeypatch.setattr("api.evals.run_service.PAGE_BYTES", 1000)
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
