"""Worker, API and housekeeping are killed during a sweep: it goes on, and trains no rung twice."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.service import (
    BASE_MODEL,
    DATASET,
    Service,
    metrics_of,
    running_service,
    upload,
    wait_until,
    weights_hash,
)
from tests.worker import workshop

STEPS = 64
RATES = [1e-5, 1e-3, 3e-3, 1e-4]
HALVING = {"first_share": 0.25, "growth": 2, "last_share": None, "finalists": 1}
KILLS = ("worker", "worker.housekeeping", "api", "worker", "worker.housekeeping", "worker")
"""In this order, each after some more steps."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("killed-sweep")) as service:
        yield service


def request(service: Service, method: str, path: str, body: object = None) -> dict[str, Any] | None:
    """Return the answer; None while the API does not answer."""
    url = f"{service.url}/v1/fine_tuning/{path}"
    try:
        answer = httpx.request(method, url, json=body, trust_env=False, timeout=30)
    except httpx.TransportError:
        return None
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def progress(service: Service, sweep_id: str) -> int:
    """Return the steps that are done in all trials; -1 while the API does not answer."""
    sweep = request(service, "GET", f"sweeps/{sweep_id}")
    if sweep is None:
        return -1
    assert sweep["status"] in ("running", "succeeded"), sweep
    jobs = [request(service, "GET", f"jobs/{trial['job_id']}") for trial in sweep["trials"]]
    return -1 if None in jobs else sum(job["progress"]["step"] for job in jobs if job)


def steps_of(service: Service, job_id: str) -> list[int]:
    metrics = metrics_of(service.client, job_id)
    return [int(each["step"]) for each in metrics if "train_loss" in each]


def job_body(service: Service, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "rows.jsonl"
    lines = (DATASET / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:120]), encoding="utf-8")
    return {
        "model": BASE_MODEL,
        "training_file": upload(service.client, path),
        "seed": 3,
        "training": {"max_steps": STEPS, "batch_size": 2, "learning_rate": RATES[2]},
        "evaluation": {"split": 0.2},
    }


def test_sweep_goes_on_whatever_is_killed(service: Service, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    job = job_body(service, tmp_path)
    search = {"type": "grid", "parameters": {"training.learning_rate": RATES}}
    body = {"job": job, "search": search, "halving": HALVING}
    sweep = request(service, "POST", "sweeps", body)
    assert sweep is not None
    sweep_id, kills, before = sweep["id"], 0, 0
    for name in KILLS:
        workshop.wait_until(
            lambda before=before: progress(service, sweep_id) > before, f"before {name} is killed"
        )
        time.sleep(draw.uniform(0, 0.5))
        if (request(service, "GET", f"sweeps/{sweep_id}") or {}).get("status") == "succeeded":
            break
        before = max(0, progress(service, sweep_id))
        os.kill(service.worker(name).pid, signal.SIGKILL)
        kills += 1
        print(f"{name} killed after {before} steps")
    assert kills > 3, "the sweep ended before much was killed"

    def has_ended() -> bool:
        return (request(service, "GET", f"sweeps/{sweep_id}") or {}).get("status") == "succeeded"

    workshop.wait_until(has_ended, "the sweep ends")
    sweep = request(service, "GET", f"sweeps/{sweep_id}")
    assert sweep is not None
    assert sorted(trial["status"] for trial in sweep["trials"]) == ["lost", "lost", "lost", "won"]
    for trial in sweep["trials"]:
        told = steps_of(service, trial["job_id"])
        shares = [result["share"] for result in trial["results"]]
        assert shares == [0.25, 0.5, 1.0][: len(shares)]
        assert set(told) == set(range(1, int(shares[-1] * STEPS) + 1))
        for share in shares[:-1]:  # after the first step beyond a rung, none of the rung follows
            beyond = next(place for place, step in enumerate(told) if step > share * STEPS)
            assert min(told[beyond:]) > share * STEPS

    winner = sweep["winner"]
    assert winner["fine_tuned_model"].startswith("ft:tiny:")
    job["training"]["learning_rate"] = RATES[winner["trial"]]
    alone = request(service, "POST", "jobs", job)
    assert alone is not None
    wait_until(service.client, alone["id"], "succeeded")
    hashes = [weights_hash(service.client, each) for each in (winner["job_id"], alone["id"])]
    assert hashes[0] == hashes[1], "the winner is not the model of an uninterrupted job"
