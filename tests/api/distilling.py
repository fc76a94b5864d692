"""Distillations for the tests of the API."""

import json
import time
from typing import Any

import httpx

from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, EXACTLY

ROUTE = "/v1/fine_tuning/distillations"
WAIT_SECONDS = 60
EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.expected }}",
    "operation": "eq",
}


def prompts(*questions: str, expected: str = ANSWER) -> dict[str, Any]:
    """Prompts that the scripted engine answers; each expects the same answer."""
    items = [
        {"item": {"messages": [{"role": "user", "content": each}], "expected": expected}}
        for each in questions
    ]
    return {"type": "file_content", "content": items}


def said(text: str) -> str:
    """A question that the scripted engine answers with `text`."""
    return EXACTLY + text


def body_of(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    job = {"model": "tunesmith/tiny", "suffix": "student", "seed": 1}
    return {"prompts": source, "teacher": "tunesmith/tiny", "job": job} | changes


def create(client: httpx.Client, source: dict[str, Any], **changes: Any) -> Any:
    answer = client.post(ROUTE, json=body_of(source, **changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


def worked(api: Api, client: httpx.Client, created: dict[str, Any]) -> Any:
    """Let a light worker work until the job exists or the distillation has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    with light_worker_of(api):
        while (found := look(client, created))["status"] in ("queued", "asking", "filtering"):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
    return found


def look(client: httpx.Client, created: dict[str, Any]) -> Any:
    return client.get(f"{ROUTE}/{created['id']}").json()


def candidates(client: httpx.Client, created: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get(f"{ROUTE}/{created['id']}/candidates")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def content(client: httpx.Client, file_id: str) -> list[dict[str, Any]]:
    text = client.get(f"/v1/files/{file_id}/content").text
    return [json.loads(line) for line in text.splitlines()]
