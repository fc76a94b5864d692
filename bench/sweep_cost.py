"""The cost of a sweep through the service, in steps and in seconds, beside that of one job."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

from bench.processes import require_success, service
from bench.sweep_curves import BATCH_ROWS, RATES, short_rows

TRAINING_ROWS, HELD_OUT_ROWS = 1000, 100
EPOCHS = 6
MIDDLE = RATES[4]
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Cost:
    """Seconds begin with the client's request and end with the last job. CPU seconds are those of
    all processes of the service, which other work on the machine changes less."""

    steps_of_a_job: int
    steps_of_the_sweep: int
    ratio_of_steps: float
    seconds_of_a_job: float
    seconds_of_the_sweep: float
    ratio_of_seconds: float
    cpu_seconds_of_a_job: float
    cpu_seconds_of_the_sweep: float
    ratio_of_cpu_seconds: float
    restarts: int
    seconds_outside_training: float
    """Of the sweep: its seconds less those of its steps."""


def measured_cost(folder: Path) -> Cost:
    """Run a job, and a sweep over all rates, one after another."""
    with service(folder / "service") as port:
        url = f"http://127.0.0.1:{port}/v1"
        client = OpenAI(base_url=url, api_key="none")
        body = _body(client, folder)
        _warm_up(client, body)
        before, started = _cpu_seconds(), time.monotonic()
        job = client.fine_tuning.jobs.create(**_as_openai(body))
        require_success(client, job, POLL_SECONDS)
        job_cpu, job_seconds = _cpu_seconds() - before, time.monotonic() - started
        before, started = _cpu_seconds(), time.monotonic()
        sweep = _sweep(url, body)
        sweep_cpu, sweep_seconds = _cpu_seconds() - before, time.monotonic() - started
        steps = [_steps(client, trial["job_id"]) for trial in sweep["trials"]]
        of_job = _steps(client, job.id)
    total = sum(count for count, _ in steps)
    return Cost(
        steps_of_a_job=of_job[0],
        steps_of_the_sweep=total,
        ratio_of_steps=total / of_job[0],
        seconds_of_a_job=job_seconds,
        seconds_of_the_sweep=sweep_seconds,
        ratio_of_seconds=sweep_seconds / job_seconds,
        cpu_seconds_of_a_job=job_cpu,
        cpu_seconds_of_the_sweep=sweep_cpu,
        ratio_of_cpu_seconds=sweep_cpu / job_cpu,
        restarts=sum(len(trial["results"]) - 1 for trial in sweep["trials"]),
        seconds_outside_training=sweep_seconds - sum(seconds for _, seconds in steps),
    )


def _body(client: OpenAI, folder: Path) -> dict[str, Any]:
    rows = short_rows(TRAINING_ROWS, HELD_OUT_ROWS, seed=1)
    ids = []
    for name, part in (("train", rows.train), ("validation", rows.held_out)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        with path.open("rb") as content:
            ids.append(client.files.create(file=content, purpose="fine-tune").id)
    return {
        "model": "tunesmith/tiny",
        "training_file": ids[0],
        "validation_file": ids[1],
        "seed": 1,
        "training": {"epochs": EPOCHS, "batch_size": BATCH_ROWS, "learning_rate": MIDDLE},
    }


def _warm_up(client: OpenAI, body: dict[str, Any]) -> None:
    """Run one step, so that what a service measures or loads once is not in the figures."""
    short = body | {"training": body["training"] | {"max_steps": 1}}
    require_success(client, client.fine_tuning.jobs.create(**_as_openai(short)), POLL_SECONDS)


def _cpu_seconds() -> float:
    """Return the CPU time of all descendants, also of those that have ended."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def _as_openai(body: dict[str, Any]) -> dict[str, Any]:
    ours = {"training": body["training"]}
    return {name: value for name, value in body.items() if name not in ours} | {"extra_body": ours}


def _sweep(url: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a sweep to its end; return it."""
    search = {"type": "grid", "parameters": {"training.learning_rate": list(RATES)}}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        answer = http.post("/fine_tuning/sweeps", json={"job": job, "search": search})
        answer.raise_for_status()
        sweep: dict[str, Any] = answer.json()
        while sweep["status"] == "running":
            time.sleep(POLL_SECONDS)
            sweep = http.get(f"/fine_tuning/sweeps/{sweep['id']}").json()
    if sweep["status"] != "succeeded":
        raise SystemExit(f"The sweep is {sweep['status']}: {sweep['error']}")
    return sweep


def _steps(client: OpenAI, job_id: str) -> tuple[int, float]:
    """Return the number of steps that a job has trained, and their seconds."""
    events = client.fine_tuning.jobs.list_events(job_id, limit=100)
    data = [event.data for event in events if event.type == "metrics"]
    seconds = [each["seconds"] for each in data if isinstance(each, dict) and "seconds" in each]
    return len(seconds), sum(seconds)
