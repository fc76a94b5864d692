"""Evals, rows and runs for the tests of the API."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER

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


def create_eval(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    body = {"data_source_config": CONFIG, "testing_criteria": [EXACT]} | changes
    answer = client.post("/v1/evals", json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


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
    content = json.dumps(body)  # ASCII: the client cannot encode half of a surrogate pair
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.json()["error"]
