"""Worker, API and engine are killed during an eval run: each item has one result."""

import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI

from tests.end_to_end.service import BASE_MODEL, Service, running_service
from tests.faults.test_killed_engine import engine_child
from tests.worker.workshop import wait_until

ITEMS = 120
ANSWER_TOKENS = 48
KILLS = ("worker.light", "engine", "worker.light", "api")
"""In this order, each after some more items."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed-eval-run")) as service:
        yield service


def start(client: OpenAI) -> tuple[str, str]:
    """Create an eval and a run; return their ids."""
    criterion: Any = {
        "type": "string_check",
        "name": "something",
        "operation": "ne",
        "input": "{{sample.output_text}}",
        "reference": "",
    }
    config: Any = {"type": "custom", "item_schema": {}, "include_sample_schema": True}
    eval_ = client.evals.create(data_source_config=config, testing_criteria=[criterion])
    template = [{"role": "user", "content": "Question {{item.number}}{{item.more}}"}]
    # every tenth item lacks a value of the template
    rows = [
        {"item": {"number": number, **({} if number % 10 == 0 else {"more": "?"})}}
        for number in range(ITEMS)
    ]
    source: Any = {
        "type": "completions",
        "model": BASE_MODEL,
        "source": {"type": "file_content", "content": rows},
        "input_messages": {"type": "template", "template": template},
        "sampling_params": {"max_completion_tokens": ANSWER_TOKENS},
    }
    return eval_.id, client.evals.runs.create(eval_.id, data_source=source).id


def look(client: OpenAI, eval_id: str, run_id: str) -> Any:
    """Return the run; None while the API does not answer."""
    try:
        return client.evals.runs.retrieve(run_id, eval_id=eval_id)
    except (openai.APIConnectionError, openai.InternalServerError):
        return None


def done(client: OpenAI, eval_id: str, run_id: str) -> int:
    run = look(client, eval_id, run_id)
    if run is None:
        return 0
    assert run.status in ("queued", "in_progress", "completed"), run
    counts = run.result_counts
    return int(counts.passed + counts.failed + counts.errored)


def process_of(service: Service, name: str) -> psutil.Process:
    return engine_child(service) if name == "engine" else service.worker(name)


def test_each_item_has_one_result_whatever_is_killed(service: Service) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    client = service.client
    ids = start(client)
    before = killed = 0
    for name in KILLS:
        wait_until(lambda before=before: done(client, *ids) > before, f"items end, {killed} killed")
        time.sleep(draw.uniform(0, 0.5))
        before = done(client, *ids)
        if before >= ITEMS:
            break
        os.kill(process_of(service, name).pid, signal.SIGKILL)
        killed += 1
        print(f"{name} killed after {before} items")
    assert killed > 1, "the run ended before anything was killed"

    wait_until(lambda: getattr(look(client, *ids), "status", "") == "completed", "it ends")
    run = look(client, *ids)
    found = list(client.evals.runs.output_items.list(ids[1], eval_id=ids[0], limit=100))
    assert sorted(item.datasource_item_id for item in found) == list(range(ITEMS))
    errors = {item.datasource_item_id for item in found if item.status == "error"}
    assert errors == set(range(0, ITEMS, 10))
    assert run.result_counts.errored == len(errors)
    assert run.per_model_usage[0].invocation_count == ITEMS - len(errors)
