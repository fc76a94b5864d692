"""A running service and the moves of its users, for the end-to-end tests."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

EXAMPLES = Path(__file__).parents[2] / "examples"
DATASET = EXAMPLES / "python_docs"
BASE_MODEL = "tunesmith/tiny"


@dataclass(frozen=True)
class Service:
    """A service that answers, with what a test needs to reach it and to look behind it."""

    url: str
    data_folder: Path
    process: subprocess.Popen[str]

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)


@contextmanager
def running_service(data_folder: Path) -> Iterator[Service]:
    """Run `tunesmith up` for the length of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cli.main", "up"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_folder), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert str(port) in process.stdout.readline()
        yield Service(f"http://127.0.0.1:{port}", data_folder, process)
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


def heldout_questions(count: int) -> list[list[dict[str, str]]]:
    lines = (DATASET / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][:-1] for line in lines[:count]]


def upload(client: OpenAI, path: Path) -> str:
    with path.open("rb") as content:
        return client.files.create(file=content, purpose="fine-tune").id


def submit(
    client: OpenAI, file_id: str, *, epochs: int = 2, seed: int = 7, suffix: str = "test"
) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=file_id,
        suffix=suffix,
        seed=seed,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 8}},
        },
        extra_body={"strategy": {"type": "lora", "r": 16}, "training": {"learning_rate": 1e-3}},
    )


def wait_until(
    client: OpenAI, job_id: str, *statuses: str, timeout_seconds: float = 180
) -> FineTuningJob:
    """Poll until the job has one of `statuses`; fail loudly when it ends in another one."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        assert job.status not in ("succeeded", "failed", "cancelled"), job.to_json()
        time.sleep(0.1)
    raise AssertionError(f"{job_id} is still {job.status}, not one of {statuses}")
