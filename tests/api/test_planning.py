"""What a job would need, before it exists: the table of strategies, estimates, dry runs, auto."""

import json
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from api.jobs import room
from core.catalog.strategies import STRATEGIES
from core.planning.fit import Fit, judge
from core.records import tasks
from core.records.dry_runs import DRY_RUN
from core.records.workers import worker_seen
from core.spec.dry_run import CountedRows, DryRunRequest, DryRunResult
from core.tasks.failure import TaskFailure
from core.tasks.kinds import Queue
from tests.api.live import Api
from tests.core.planning.devices import GIB, device

TABLE = "/v1/fine_tuning/strategies"
ESTIMATES = "/v1/fine_tuning/estimates"
JOBS = "/v1/fine_tuning/jobs"


def add_worker(api: Api, worker_id: str = "worker-1", gib: float = 24, **changes: Any) -> None:
    with api.database.writing() as session:
        worker_seen(session, worker_id, "cpu", Queue.DEVICE, device(gib, **changes))


def body_for(file_id: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tunesmith/tiny", "training_file": file_id, **fields}


def test_the_table_compares_every_strategy(api: Api, client: httpx.Client) -> None:
    add_worker(api)
    table = client.get(TABLE, params={"model": "tiny"}).json()
    rows = {row["type"]: row for row in table["data"]}
    assert list(rows) == list(STRATEGIES)
    assert (table["model"], table["base_parameters"], table["worker"]) == (
        "tunesmith/tiny",
        4_196_608,
        "worker-1",
    )
    assert rows["lora"]["parameters"]["trainable"] == 311_296
    assert rows["full"]["parameters"]["trainable_share"] == 1
    for row in rows.values():
        assert row["supported"] and row["fits"] == "yes" and row["when_to_use"]
        assert row["seconds_per_1000_tokens"] > 0
        parts = row["peak_memory"]["parts"]
        assert row["peak_memory"]["total"] == sum(parts.values()) > parts["weights"] > 0
        assert (row["quality"] is None) == (row["quality_missing"] is not None)
    assert rows["full"]["quality"]["loss"] < rows["prompt"]["quality"]["loss"]
    assert rows["ia3"]["quality"] is None


def test_without_a_measured_worker_there_is_no_time_and_no_verdict(client: httpx.Client) -> None:
    table = client.get(TABLE, params={"model": "tiny"}).json()
    assert (table["worker"], table["device"]) == (None, None)
    assert {row["seconds_per_1000_tokens"] for row in table["data"]} == {None}
    assert {row["fits"] for row in table["data"]} == {None}


def test_the_picture_has_a_bar_for_each_strategy(client: httpx.Client) -> None:
    answer = client.get(f"{TABLE}/picture", params={"model": "tiny"})
    assert answer.headers["content-type"] == "image/svg+xml"
    picture = ET.fromstring(answer.text)
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert set(STRATEGIES) <= set(texts) and "311 K" in texts
    accepted = client.get(TABLE, params={"model": "tiny"}, headers={"accept": "image/svg+xml"})
    assert accepted.text == answer.text


def test_models_that_cannot_be_compared_are_refused(client: httpx.Client) -> None:
    for model, status, code in [
        ("tunesmith/tinny", 404, "model_not_found"),
        ("qwen3-0.6b", 404, "config_not_found"),
    ]:
        for path in (TABLE, f"{TABLE}/picture"):
            answer = client.get(path, params={"model": model})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_estimate_says_what_a_job_needs_and_creates_none(
    api: Api, client: httpx.Client, upload: Callable[..., str]
) -> None:
    add_worker(api)
    add_worker(api, "worker-2", gib=0.4)
    file_id = upload()
    found = client.post(ESTIMATES, json=body_for(file_id)).json()
    assert (found["status"], found["id"], found["fits"]) == ("succeeded", None, "yes")
    assert found["parameters"]["trainable"] == 311_296
    assert found["steps"] == 3 * 20 and found["tokens"]["is_exact"] is False
    fits = {each["worker"]: each for each in found["workers"]}
    assert fits["worker-1"]["fits"] == "yes" and fits["worker-2"]["fits"] == "no"
    assert found["training_seconds"] == fits["worker-1"]["training_seconds"] > 0
    assert found["price"] is None
    assert client.get(JOBS).json()["data"] == []


def test_the_price_is_that_of_the_time(
    api: Api, client: httpx.Client, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_worker(api)
    settings = api.state.settings.model_copy(update={"price_per_hour": 7200.0})
    monkeypatch.setitem(vars(api.state), "settings", settings)
    found = client.post(ESTIMATES, json=body_for(dataset)).json()
    assert found["price"] == pytest.approx(2 * found["training_seconds"], rel=1e-3)


def test_an_estimate_refuses_what_a_job_refuses(client: httpx.Client, dataset: str) -> None:
    for changes, param in [
        ({"model": "tinny"}, "model"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"strategy": {"type": "lorra"}}, "strategy.type"),
    ]:
        answer = client.post(ESTIMATES, json=body_for(dataset) | changes)
        assert 400 <= answer.status_code < 500
        assert answer.json()["error"]["param"] == param


def test_a_job_that_fits_nowhere_is_refused_with_what_would_fit(
    api: Api, client: httpx.Client, upload: Callable[..., str]
) -> None:
    turns = {"role": "user", "content": "Go on."}, {"role": "assistant", "content": "word " * 600}
    file_id = upload((json.dumps({"messages": turns}) + "\n").encode() * 256)
    add_worker(api, gib=4)
    training = {
        "micro_batch_tokens": 1_000_000,
        "batch_size": 256,
        "gradient_checkpointing": False,
    }
    body = body_for(file_id, training=training)
    answer = client.post(JOBS, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "does_not_fit", "model")
    assert "Set training.gradient_checkpointing to true" in error["message"]
    assert client.get(JOBS).json()["data"] == []
    estimate = client.post(ESTIMATES, json=body).json()
    assert estimate["fits"] == "no"
    changes = estimate["suggestion"]["changes"]["training"]
    changed = body | {"training": training | changes}
    assert client.post(ESTIMATES, json=changed).json()["fits"] == "yes"
    assert client.post(JOBS, json=changed).status_code == 200


def test_a_worker_that_is_not_measured_may_fit_what_no_other_fits(
    api: Api, client: httpx.Client, upload: Callable[..., str]
) -> None:
    turns = {"role": "user", "content": "Go on."}, {"role": "assistant", "content": "word " * 600}
    file_id = upload((json.dumps({"messages": turns}) + "\n").encode() * 256)
    add_worker(api, gib=0.1)
    assert client.post(JOBS, json=body_for(file_id)).json()["error"]["code"] == "does_not_fit"
    with api.database.writing() as session:
        worker_seen(session, "worker-light", "cpu", Queue.LIGHT)
    assert client.post(JOBS, json=body_for(file_id)).status_code == 400
    with api.database.writing() as session:
        worker_seen(session, "worker-busy", "NVIDIA", Queue.DEVICE)
    assert client.post(JOBS, json=body_for(file_id)).status_code == 200


def test_an_estimate_refuses_graders_that_a_job_refuses(client: httpx.Client, dataset: str) -> None:
    grader = {"type": "string_check", "name": "a", "operation": "eq", "input": "{{nothing}}"}
    body = body_for(dataset, evaluation={"graders": [grader | {"reference": "x"}]})
    for route in (JOBS, ESTIMATES):
        answer = client.post(route, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "evaluation.graders[0].input"


def test_without_a_measured_worker_no_job_is_refused(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    with api.database.writing() as session:
        worker_seen(session, "worker-1", "cpu", Queue.DEVICE)
    assert client.post(JOBS, json=body_for(dataset)).status_code == 200


def test_auto_chooses_and_says_why(api: Api, client: httpx.Client, dataset: str) -> None:
    add_worker(api)
    job = client.post(JOBS, json=body_for(dataset, strategy={"type": "auto"})).json()
    assert job["strategy"]["type"] == "lora"
    assert job["strategy_reason"].startswith("lora: the usual choice, and it fits")
    events = client.get(f"{JOBS}/{job['id']}/events").json()["data"]
    told = f"The planner chose the strategy {job['strategy_reason']}."
    assert told in [event["message"] for event in events]
    again = client.post(JOBS, json=body_for(dataset, strategy={"type": "auto"})).json()
    assert again["strategy_reason"] == job["strategy_reason"]
    named = client.post(JOBS, json=body_for(dataset)).json()
    assert named["strategy_reason"] is None


@pytest.mark.parametrize("route", [JOBS, ESTIMATES, "/v1/fine_tuning/masks"])
def test_others_can_write_while_a_job_is_planned(
    api: Api,
    client: httpx.Client,
    dataset: str,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
) -> None:
    add_worker(api)
    database = api.database.engine.url.database
    writes: list[str] = []

    def judged(*arguments: Any) -> Fit:
        with closing(sqlite3.connect(str(database), timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")  # "database is locked" while anyone else writes
            writes.append(route)
        return judge(*arguments)

    monkeypatch.setattr(room, "judge", judged)
    answer = client.post(route, json=body_for(dataset, strategy={"type": "auto"}))
    assert (answer.status_code, bool(writes)) == (200, True)


def result_of(machine: str | None) -> DryRunResult:
    counted = CountedRows(
        rows=40, mean_tokens=20, longest_tokens=24, sequences_per_row=1, labelled_share=0.25
    )
    return DryRunResult(
        machine=machine,
        counted=counted,
        total_steps=60,
        trainable_parameters=311_296,
        total_parameters=4_507_904,
        precision="bf16",
        gradient_checkpointing=False,
        batch_tokens=48,
        micro_batch_tokens=48,
        micro_batches=1,
        seconds_per_step=0.5,
        peak_memory_bytes=GIB,
    )


def test_a_dry_run_is_measured_by_a_worker_and_corrects_later_estimates(
    api: Api, client: httpx.Client, upload: Callable[..., str]
) -> None:
    add_worker(api)
    file_id = upload()
    body = body_for(file_id, training={"batch_size": 2})
    before = client.post(ESTIMATES, json=body).json()
    asked = client.post(ESTIMATES, json=body | {"dry_run": True}).json()
    assert asked["status"] == "queued" and asked["measured"] is None
    path = f"{ESTIMATES}/{asked['id']}"
    waiting = client.get(path).json()
    assert (waiting["status"], waiting["tokens"]) == ("queued", asked["tokens"])
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-1", [DRY_RUN])
        assert claim is not None and claim.id == asked["id"]
        assert DryRunRequest.model_validate(claim.payload).spec.base.id == "tunesmith/tiny"
        tasks.succeed(session, claim, result_of("machine-1"))
    done = client.get(path).json()
    assert (done["status"], done["measured"]["peak_memory_bytes"]) == ("succeeded", GIB)
    assert done["tokens"] == {
        "per_epoch": 800,
        "trained": 2400,
        "longest_row": 24,
        "is_exact": True,
    }
    assert done["precision"] == "bf16"
    assert done["workers"][0]["is_calibrated_by_dry_run"]
    assert done["memory"]["total"] == pytest.approx(GIB, rel=0.1)
    assert done["training_seconds"] == pytest.approx(0.5 * done["steps"] * 40 / 48, rel=0.3)
    after = client.post(ESTIMATES, json=body).json()
    assert after["tokens"]["is_exact"] and not before["tokens"]["is_exact"]
    assert after["memory"]["total"] == done["memory"]["total"] != before["memory"]["total"]


def test_a_failed_dry_run_says_why(api: Api, client: httpx.Client, dataset: str) -> None:
    asked = client.post(ESTIMATES, json=body_for(dataset, dry_run=True)).json()
    error = {"code": "invalid_training_file", "message": "Line 3 …", "param": "training_file"}
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-1", [DRY_RUN])
        assert claim is not None
        tasks.fail(session, claim, TaskFailure.model_validate(error))
    found = client.get(f"{ESTIMATES}/{asked['id']}").json()
    assert (found["status"], found["error"]) == ("failed", error)
    assert client.get(f"{ESTIMATES}/estimate-none").status_code == 404
