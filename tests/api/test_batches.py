"""Batches over HTTP: creation, progress, files, cancellation, and every refusal."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records import tasks
from core.records.batches import BATCH
from core.records.tables import Batch, File
from tests.api.batch_files import CHAT, as_file, chat_line, read_lines, upload_requests
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from worker import housekeeping

Create = Callable[..., dict[str, Any]]
WAIT_SECONDS = 120


@pytest.fixture
def create(client: httpx.Client) -> Create:
    """`create(lines)` uploads lines and returns the batch that answers them."""

    def create(lines: list[Any], **changes: Any) -> dict[str, Any]:
        file_id = upload_requests(client, as_file(lines))["id"]
        body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        answer = client.post("/v1/batches", json=body | changes)
        assert answer.status_code == 200, answer.text
        batch: dict[str, Any] = answer.json()
        return batch

    return create


def get(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
    return batch


def wait_for(client: httpx.Client, batch_id: str, *statuses: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS
    while (batch := get(client, batch_id))["status"] not in statuses:
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


def test_batch_answers_every_line_into_a_file(
    api: Api, client: httpx.Client, create: Create
) -> None:
    lines = [chat_line(0), chat_line(1, "be a classifier"), chat_line(2, "call twice")]
    lines.append(chat_line(3, body={"model": "tunesmith/tiny", "messages": [], "top_q": 1}))
    lines.append(chat_line(4, body=chat_line(4)["body"] | {"stream": True}))
    lines.append(chat_line(5, body=chat_line(5)["body"] | {"model": "tunesmith/nothing"}))
    created = create(lines, metadata={"team": "red"})
    assert created["status"] == "validating"
    assert created["request_counts"] == {"total": 6, "completed": 0, "failed": 0}
    with light_worker_of(api):
        batch = wait_for(client, created["id"], "completed", "failed")
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 6, "completed": 2, "failed": 4}
    assert batch["metadata"] == {"team": "red"} and batch["errors"] is None
    times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    assert batch["usage"]["total_tokens"] == batch["usage"]["input_tokens"] + 4 + 9

    outputs = {line["custom_id"]: line for line in read_lines(client, batch["output_file_id"])}
    assert outputs.keys() == {"line-0", "line-2"}
    first = outputs["line-0"]
    assert first["id"].startswith("batch_req_") and first["error"] is None
    assert first["response"]["status_code"] == 200
    message = first["response"]["body"]["choices"][0]["message"]
    assert first["response"]["body"]["object"] == "chat.completion"
    assert message["content"] == ANSWER
    errors = {line["custom_id"]: line for line in read_lines(client, batch["error_file_id"])}
    found = {
        name: (line["response"]["status_code"], line["response"]["body"]["error"]["code"])
        for name, line in errors.items()
    }
    assert found == {
        "line-1": (400, "not_a_generator"),
        "line-3": (400, "invalid_value"),
        "line-4": (400, "unsupported_parameter"),
        "line-5": (404, "model_not_found"),
    }
    file = client.get(f"/v1/files/{batch['output_file_id']}").json()
    assert (file["purpose"], file["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")


def test_requests_of_a_batch_run_in_the_background(
    api: Api, client: httpx.Client, create: Create, engine: ScriptedEngine
) -> None:
    batch = create([chat_line(0)])
    with light_worker_of(api):
        wait_for(client, batch["id"], "completed")
    client.post("/v1/chat/completions", json=chat_line(0)["body"])
    assert [request.background for request in engine.requests] == [True, False]


def test_completions_have_their_own_batches(api: Api, client: httpx.Client, create: Create) -> None:
    url = "/v1/completions"
    body = {"model": "tunesmith/tiny", "prompt": ["hello", "again"], "max_tokens": 2}
    line = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    batch = create([line], endpoint=url)
    with light_worker_of(api):
        batch = wait_for(client, batch["id"], "completed")
    [answered] = read_lines(client, batch["output_file_id"])
    choices = answered["response"]["body"]["choices"]
    assert [choice["text"] for choice in choices] == ["The answer", "The answer"]
    assert batch["error_file_id"] is None and batch["model"] == "tunesmith/tiny"


def test_faulty_file_is_stored_and_fails_its_batch(client: httpx.Client, create: Create) -> None:
    lines = [chat_line(0), chat_line(0), chat_line(1, method="GET"), [], chat_line(2, body=[])]
    content = as_file(lines)
    file = upload_requests(client, content)
    assert file["status"] == "error"
    assert "line 2: custom_id 'line-0' is also in line 1" in file["status_details"]
    assert client.get(f"/v1/files/{file['id']}/report").json()["fault_count"] == 4
    batch = create(lines)
    assert batch["status"] == "failed" and batch["failed_at"] is not None
    assert [(error["code"], error["line"]) for error in batch["errors"]["data"]] == [
        ("invalid_custom_id", 2),
        ("invalid_method", 3),
        ("invalid_json_line", 4),
        ("invalid_body", 5),
    ]
    assert client.post(f"/v1/batches/{batch['id']}/cancel").status_code == 409


def test_lines_for_another_endpoint_fail_the_batch(create: Create) -> None:
    [error] = create([chat_line(0)], endpoint="/v1/completions")["errors"]["data"]
    assert (error["code"], error["param"], error["line"]) == ("mismatched_url", "url", 1)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": None}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            "output_expires_after.seconds",
        ),
        ({"priority": 1}, "priority"),
    ],
)
def test_wrong_field_is_refused_by_name(
    client: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    answer = client.post("/v1/batches", json=body | changes)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_file_must_exist_and_have_the_purpose(client: httpx.Client, dataset: str) -> None:
    body = {"endpoint": CHAT, "completion_window": "1h"}
    for file_id, status in (("file-none", 404), (dataset, 400)):
        answer = client.post("/v1/batches", json=body | {"input_file_id": file_id})
        assert answer.status_code == status
        assert answer.json()["error"]["param"] == "input_file_id"


def test_batches_are_listed_newest_first(client: httpx.Client, create: Create) -> None:
    ids = [create([chat_line(0)])["id"] for _ in range(3)]
    page = client.get("/v1/batches?limit=2").json()
    assert [each["id"] for each in page["data"]] == ids[:0:-1] and page["has_more"]
    rest = client.get(f"/v1/batches?after={page['last_id']}").json()
    assert [each["id"] for each in rest["data"]] == ids[:1] and not rest["has_more"]


def test_batch_that_nobody_has_begun_is_cancelled_at_once(
    api: Api, client: httpx.Client, create: Create
) -> None:
    batch = create([chat_line(0)])
    file_id = batch["input_file_id"]
    assert client.delete(f"/v1/files/{file_id}").json()["error"]["code"] == "file_in_use"
    cancelled = client.post(f"/v1/batches/{batch['id']}/cancel").json()
    assert cancelled["status"] == "cancelled" and cancelled["cancelled_at"] is not None
    with api.database.writing() as session:
        assert tasks.claim_next(session, "worker-1", [BATCH]) is None
    assert client.delete(f"/v1/files/{file_id}").status_code == 200


def test_running_batch_keeps_what_was_answered_when_it_is_cancelled(
    api: Api, client: httpx.Client, create: Create, engine: ScriptedEngine
) -> None:
    batch = create([chat_line(0), chat_line(1, "think for ever"), chat_line(2, "never end")])
    with light_worker_of(api):
        deadline = time.monotonic() + WAIT_SECONDS
        while get(client, batch["id"])["request_counts"]["completed"] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cancelled = client.post(f"/v1/batches/{batch['id']}/cancel").json()
        assert cancelled["status"] == "cancelling" and cancelled["output_file_id"] is None
        assert client.post(f"/v1/batches/{batch['id']}/cancel").status_code == 200
        batch = wait_for(client, batch["id"], "cancelled")
    assert engine.was_left.wait(WAIT_SECONDS)
    [answered] = read_lines(client, batch["output_file_id"])
    assert answered["custom_id"] == "line-0"
    errors = read_lines(client, batch["error_file_id"])
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [
        ("line-1", "batch_cancelled"),
        ("line-2", "batch_cancelled"),
    ]
    assert all(each["response"] is None for each in errors)
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 0}
    assert client.post(f"/v1/batches/{batch['id']}/cancel").json() == batch


def test_batch_expires_with_what_was_answered(
    api: Api, client: httpx.Client, create: Create
) -> None:
    hour = {"anchor": "created_at", "seconds": 3600}
    batch = create([chat_line(0), chat_line(1, "think for ever")], output_expires_after=hour)
    with light_worker_of(api):
        deadline = time.monotonic() + WAIT_SECONDS
        while get(client, batch["id"])["request_counts"]["completed"] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with api.database.writing() as session:
            session.get_one(Batch, batch["id"]).expires_at = time.time()
        batch = wait_for(client, batch["id"], "expired")
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 0}
    [error] = read_lines(client, batch["error_file_id"])
    assert (error["custom_id"], error["error"]["code"]) == ("line-1", "batch_expired")
    file = client.get(f"/v1/files/{batch['output_file_id']}").json()
    assert 3590 <= file["expires_at"] - batch["expired_at"] <= 3610

    with api.database.writing() as session:
        for name in ("output_file_id", "input_file_id"):
            session.get_one(File, batch[name]).expires_at = time.time() - 1
    other = client.post(
        "/v1/batches",
        json={
            "input_file_id": batch["input_file_id"],
            "endpoint": CHAT,
            "completion_window": "24h",
        },
    ).json()
    housekeeping.delete_expired_files(api.database, api.state.store)
    assert client.get(f"/v1/files/{batch['output_file_id']}").status_code == 404
    assert client.get(f"/v1/files/{batch['input_file_id']}").status_code == 200, "still in use"
    assert other["status"] == "validating"
