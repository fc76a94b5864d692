"""Lets the routes of single resources succeed; the client checks each answer."""

import time

import httpx

from tests.api import distilling
from tests.api.batch_files import CHAT, as_file, chat_line, upload_requests
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.core.adapter_files.archives import folder, zipped

JOBS = "/v1/fine_tuning/jobs"
GRADERS = "/v1/fine_tuning/alpha/graders"
SWEEPS = "/v1/fine_tuning/sweeps"
BATCH = {"endpoint": CHAT, "completion_window": "24h"}

_MESSAGE = {"role": "user", "content": "{{sample.output_text}}"}
_JUDGE = {"model": "tunesmith/tiny", "input": [_MESSAGE]}
_TEXTS = {"input": "{{sample.output_text}}", "reference": "{{item.a}}"}
CRITERIA = [
    {"type": "string_check", "name": "a", "operation": "eq", **_TEXTS},
    {"type": "text_similarity", "name": "b", "evaluation_metric": "rouge_l", **_TEXTS},
    {"type": "score_model", "name": "c", **_JUDGE},
    {"type": "label_model", "name": "d", "labels": ["x"], "passing_labels": ["x"], **_JUDGE},
]
EVALS = [
    {
        "name": "math",
        "data_source_config": {
            "type": "custom",
            "item_schema": {"type": "object"},
            "include_sample_schema": True,
        },
        "testing_criteria": CRITERIA,
    },
    {"data_source_config": {"type": "logs"}, "testing_criteria": CRITERIA[:1]},
    {
        "data_source_config": {"type": "stored_completions", "metadata": {"a": "b"}},
        "testing_criteria": CRITERIA[:1],
    },
]


def use_made_models(client: httpx.Client, tuned: str) -> None:
    """Request an import and a soup, and look at them."""
    upload = {"file": ("adapter.zip", zipped(folder()))}
    file = client.post("/v1/files", files=upload, data={"purpose": "adapter"})
    assert file.status_code == 200, file.text
    assert client.get(f"/v1/files/{file.json()['id']}/report").status_code == 200
    body = {"model": "tunesmith/tiny", "file": file.json()["id"]}
    asked = {"import": body, "soups": {"models": [tuned, f"{tuned}:ckpt-step-5"]}}
    for name, each in asked.items():
        made = client.post(f"/v1/models/{name}", json=each)
        assert made.status_code == 200, made.text
        assert client.get(f"/v1/models/{name}/{made.json()['id']}").json() == made.json()


def use_sweeps(client: httpx.Client, file_id: str) -> None:
    """Create a sweep, look at it, and move it until its end."""
    job = {
        "model": "tunesmith/tiny",
        "training_file": file_id,
        "evaluation": {"split": 0.1},
    }
    search = {"type": "grid", "parameters": {"strategy.rank": [4, 8]}}
    sweep = client.post(SWEEPS, json={"job": job, "search": search})
    assert sweep.status_code == 200, sweep.text
    path = f"{SWEEPS}/{sweep.json()['id']}"
    for trial in sweep.json()["trials"]:
        look_at_job(client, trial["job_id"])
    for move in ("pause", "resume", "cancel"):
        assert client.post(f"{path}/{move}").status_code == 200
    assert client.get(path).json() == client.get(SWEEPS).json()["data"][0]


def use_distillations(api: Api, client: httpx.Client) -> None:
    """Create a distillation, let it come to its job, look at it, and end it."""
    created = distilling.create(client, distilling.prompts("hello", "fail"), max_failed_share=0.5)
    found = distilling.worked(api, client, created)
    assert found == client.get(distilling.ROUTE).json()["data"][0]
    look_at_job(client, found["job_id"])
    path = f"{distilling.ROUTE}/{found['id']}"
    for format_ in ("jsonl", "csv"):
        assert client.get(f"{path}/candidates?format={format_}").status_code == 200
    assert client.get(f"/v1/files/{found['training_file']}/report").status_code == 200
    assert client.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert client.delete(path).status_code == 200


def use_batches(api: Api, client: httpx.Client) -> None:
    """Let batches reach every status that the client can see without killing anything."""
    lines = as_file([chat_line(0), chat_line(1, "be a classifier")])
    bodies = [
        {"input_file_id": upload_requests(client, content)["id"], **BATCH}
        for content in (lines, b"no request\n")
    ]
    for body in (*bodies, bodies[0]):
        batch_id = client.post("/v1/batches", json=body).json()["id"]
    assert client.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    with light_worker_of(api):
        while "completed" not in (found := statuses(client)):
            assert found <= {"validating", "in_progress", "finalizing", "failed", "cancelled"}
            time.sleep(0.1)
    assert statuses(client) == {"completed", "failed", "cancelled"}
    for each in client.get("/v1/batches").json()["data"]:
        assert client.get(f"/v1/batches/{each['id']}").json() == each
    for purpose in ("batch", "batch_output"):
        assert client.get(f"/v1/files?purpose={purpose}").json()["data"]
    assert client.get(f"/v1/files/{bodies[0]['input_file_id']}/report").status_code == 200


def use_graders(client: httpx.Client, model: str) -> None:
    """Validate and run every kind of grader; Python needs a sandbox to run."""
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    asked = {"model": model, "input": [{"role": "user", "content": 'say exactly {"result": 1}'}]}
    labels = {"labels": ["good", "bad"], "passing_labels": ["good"]}
    graders: list[dict[str, object]] = [
        {"type": "string_check", "name": "a", "operation": "ilike", **texts},
        {"type": "text_similarity", "name": "b", "evaluation_metric": "rouge_l", **texts},
        {"type": "score_model", "name": "c", "range": [0, 1], **asked},
        {"type": "label_model", "name": "d", **asked, **labels},
        {"type": "python", "name": "e", "source": "def grade(sample, item):\n    return 1.0"},
    ]
    single = {str(grader["name"]): grader for grader in graders}
    several = {"type": "multi", "name": "f", "graders": single, "calculate_output": "a + b / 2"}
    for grader in (*graders, several):
        answer = client.post(f"{GRADERS}/validate", json={"grader": grader})
        assert answer.json() == {"grader": grader}
        for item in ({"answer": "Paris"}, {}):
            body = {"grader": grader, "item": item, "model_sample": "Paris"}
            assert client.post(f"{GRADERS}/run", json=body).status_code == 200


def statuses(client: httpx.Client) -> set[str]:
    return {batch["status"] for batch in client.get("/v1/batches").json()["data"]}


def use_evals(api: Api, client: httpx.Client) -> None:
    """Let every route of evals succeed, with every kind of criterion and of data source."""
    rows = [
        {"item": {"q": text, "a": "b"}, "sample": {"output_text": "b"}} for text in ("hi", "fail")
    ]
    file_id = upload_requests(client, as_file(rows), "evals")["id"]
    assert client.get(f"/v1/files/{file_id}/report").status_code == 200
    eval_ids = [client.post("/v1/evals", json=body).json()["id"] for body in EVALS]
    path = f"/v1/evals/{eval_ids[0]}"
    assert client.post(path, json={"name": "b"}).status_code == 200
    content = {"type": "file_content", "content": rows}
    template = {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]}
    sampled = {"model": "tunesmith/tiny", "input_messages": template}
    for source in (
        {"type": "jsonl", "source": {"type": "file_id", "id": file_id}},
        {"type": "completions", "source": content, **sampled},
        {"type": "responses", "source": content, **sampled, "sampling_params": {"top_p": 0.5}},
    ):
        created = client.post(f"{path}/runs", json={"data_source": source})
        assert created.status_code == 201, created.text
        run = f"{path}/runs/{created.json()['id']}"
    with light_worker_of(api):
        while {each["status"] for each in client.get(f"{path}/runs").json()["data"]} != {
            "completed"
        }:
            time.sleep(0.05)
    found = client.get(f"{run}/output_items").json()["data"]
    assert {item["status"] for item in found} >= {"error"}
    assert client.get(f"{run}/output_items/{found[0]['id']}").status_code == 200
    assert client.get(f"{run}/report").status_code == client.get(run).status_code == 200
    waiting = client.post(f"{path}/runs", json={"data_source": source}).json()["id"]
    assert client.post(f"{path}/runs/{waiting}").status_code == 200
    assert client.post(f"{path}/runs/{waiting}/cancel").status_code == 200
    assert client.delete(f"{path}/runs/{waiting}").status_code == 200
    for url in ("/v1/evals", path):
        assert client.get(url).status_code == 200
    for eval_id in eval_ids:
        assert client.delete(f"/v1/evals/{eval_id}").status_code == 200


def use_stored_completions(client: httpx.Client, chat: dict[str, object]) -> None:
    id_ = client.post("/v1/chat/completions", json=chat | {"store": True}).json()["id"]
    path = f"/v1/chat/completions/{id_}"
    while client.get(path).status_code == 404:  # it is stored after the answer
        time.sleep(0.02)
    for url in ("/v1/chat/completions", path, f"{path}/messages"):
        assert client.get(url).status_code == 200
    assert client.post(path, json={"metadata": {"a": "b"}}).status_code == 200
    assert client.delete(path).status_code == 200


def use_responses(api: Api, client: httpx.Client, model: str) -> None:
    """Let every route of responses succeed, for a stored and for a background response."""
    asked = {"model": model, "input": "hello"}
    stored = client.post("/v1/responses", json=asked).json()["id"]
    waiting = client.post("/v1/responses", json=asked | {"background": True}).json()["id"]
    for response_id in (stored, waiting):
        path = f"/v1/responses/{response_id}"
        assert client.get(path).status_code == 200
        assert client.get(f"{path}/input_items").status_code == 200
    assert client.post(f"/v1/responses/{waiting}/cancel").status_code == 200
    assert client.delete(f"/v1/responses/{stored}").status_code == 200


def look_at_job(client: httpx.Client, job_id: str) -> None:
    for path in ("", f"/{job_id}", f"/{job_id}/events", f"/{job_id}/checkpoints"):
        assert client.get(f"{JOBS}{path}").status_code == 200
