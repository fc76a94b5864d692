"""Worker, API and engine are killed during a distillation: it ends with one file and one job."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.service import BASE_MODEL, Service, running_service
from tests.faults.test_killed_engine import engine_child
from tests.worker.workshop import wait_until

ROUTE = "/fine_tuning/distillations"
PROMPTS = 120
ANSWER_TOKENS = 128
SOME_LETTERS = {"type": "regex", "pattern": "[a-z ]{60,80}"}
"""Answers of the untrained base that end, and not at once."""
KILLS = ("worker.light", "engine", "worker.light", "api")
"""In this order, each after some more prompts."""
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed-distillation")) as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    url = str(service.client.base_url)
    headers = {"authorization": f"Bearer {service.client.api_key}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http:
        yield http


def start(http: httpx.Client) -> str:
    """Create a distillation; every tenth prompt has no messages."""
    items: list[dict[str, Any]] = [
        {"item": {"number": number}}
        if number % 10 == 0
        else {"item": {"messages": [{"role": "user", "content": f"Question {number}?"}]}}
        for number in range(PROMPTS)
    ]
    body = {
        "prompts": {"type": "file_content", "content": items},
        "teacher": BASE_MODEL,
        "sampling": {"max_completion_tokens": ANSWER_TOKENS, "response_format": SOME_LETTERS},
        "max_failed_share": 0.2,
        "job": {
            "model": BASE_MODEL,
            "seed": 1,
            "evaluation": {"split": 0.1},
            "training": {"max_steps": 4, "batch_size": 2},
        },
    }
    answer = http.post(ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def look(http: httpx.Client, id_: str) -> Any:
    """Return the distillation; None while the API does not answer."""
    try:
        answer = http.get(f"{ROUTE}/{id_}")
    except httpx.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None


def done(http: httpx.Client, id_: str) -> int:
    found = look(http, id_)
    if found is None:
        return 0
    assert found["error"] is None, found
    return int(found["asking"]["asked"])


def process_of(service: Service, name: str) -> psutil.Process:
    return engine_child(service) if name == "engine" else service.worker(name)


def test_there_are_one_file_and_one_job_whatever_is_killed(
    service: Service, http: httpx.Client
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    id_ = start(http)
    before = killed = 0
    for name in KILLS:
        wait_until(lambda before=before: done(http, id_) > before, f"prompts end, {killed} killed")
        time.sleep(draw.uniform(0, 0.5))
        before = done(http, id_)
        if look(http, id_) is not None and before >= PROMPTS:
            break
        os.kill(process_of(service, name).pid, signal.SIGKILL)
        killed += 1
        print(f"{name} killed after {before} prompts")
    assert killed > 1, "the distillation ended before anything was killed"

    wait_until(lambda: (look(http, id_) or {}).get("status") in ENDED, "its job ends")
    found = look(http, id_)
    assert (found["status"], found["error"]) == ("succeeded", None), found
    bad = len(range(0, PROMPTS, 10))
    counts = {"total": PROMPTS, "asked": PROMPTS, "answered": PROMPTS - bad, "failed": bad}
    assert found["asking"] == counts and found["reasons"] == {"invalid_item": bad}
    assert found["usage"][0]["invocation_count"] == PROMPTS - bad
    lines = http.get(f"{ROUTE}/{id_}/candidates").text.splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == list(range(PROMPTS))
    jobs = list(service.client.fine_tuning.jobs.list())
    assert [job.id for job in jobs] == [found["job_id"]]
    (file,) = list(service.client.files.list(purpose="fine-tune"))
    assert file.id == found["training_file"] == jobs[0].training_file
    content = service.client.files.content(file.id).text
    assert len(content.splitlines()) == PROMPTS - bad == found["filtering"]["rows"]
    model = found["fine_tuned_model"]
    assert model is not None and found["verdict"] is not None
    message: Any = [{"role": "user", "content": "Question 1?"}]
    assert service.client.chat.completions.create(model=model, messages=message).choices
