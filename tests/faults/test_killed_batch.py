"""API, worker and engine are killed during a batch: each line is answered once."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import openai
import psutil
import pytest
from openai import OpenAI
from openai.types import Batch

from tests.end_to_end.service import BASE_MODEL, Service, running_service
from tests.faults.test_killed_engine import engine_child
from tests.worker.workshop import wait_until

LINES = 400
ANSWER_TOKENS = 48
URL = "/v1/chat/completions"
KILLS = ("engine", "worker.light", "api", "worker.light", "engine")
"""In this order, each after some more lines."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed-batch")) as service:
        yield service


def line(number: int) -> dict[str, object]:
    body = {
        "model": BASE_MODEL if number % 10 else "no/model",
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": ANSWER_TOKENS,
        "logit_bias": {"0": -100, "2": -100},  # it may not end by itself
    }
    return {"custom_id": str(number), "method": "POST", "url": URL, "body": body}


def process_of(service: Service, name: str) -> psutil.Process:
    return engine_child(service) if name == "engine" else service.worker(name)


def look(client: OpenAI, batch_id: str) -> Batch | None:
    """Return the batch; None while the API does not answer."""
    try:
        return client.batches.retrieve(batch_id)
    except (openai.APIConnectionError, openai.InternalServerError):
        return None


def done(client: OpenAI, batch_id: str) -> int:
    batch = look(client, batch_id)
    if batch is None or batch.request_counts is None:
        return 0
    assert batch.status in ("validating", "in_progress", "finalizing", "completed"), batch
    return batch.request_counts.completed + batch.request_counts.failed


def ids_in(client: OpenAI, file_id: str | None) -> Counter[str]:
    assert file_id is not None
    lines = client.files.content(file_id).text.splitlines()
    return Counter(json.loads(each)["custom_id"] for each in lines)


def test_each_line_is_answered_once_whatever_is_killed(service: Service) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    client = service.client
    content = "".join(json.dumps(line(number)) + "\n" for number in range(LINES)).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch_id = client.batches.create(
        input_file_id=file.id, endpoint=URL, completion_window="24h"
    ).id
    before = 0
    for number, name in enumerate(KILLS):
        wait_until(
            lambda before=before: done(client, batch_id) > before,
            f"lines are answered, {number} killed",
        )
        time.sleep(draw.uniform(0, 0.5))
        before = done(client, batch_id)
        if before >= LINES:
            break
        victim = process_of(service, name)
        os.kill(victim.pid, signal.SIGKILL)
        print(f"{name} killed after {before} lines")
    assert number > 1, "the batch ended before anything was killed"

    wait_until(lambda: getattr(look(client, batch_id), "status", "") == "completed", "it ends")
    batch = client.batches.retrieve(batch_id)
    answers, errors = ids_in(client, batch.output_file_id), ids_in(client, batch.error_file_id)
    assert answers + errors == Counter(str(number) for number in range(LINES))
    assert errors.keys() == {str(number) for number in range(0, LINES, 10)}
    assert batch.request_counts is not None
    assert batch.request_counts.completed == answers.total()
