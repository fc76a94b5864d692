"""A running service and the moves of its users, for the end-to-end tests."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from openai import HttpxBinaryResponseContent, OpenAI
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

    def worker(self, module: str = "worker") -> psutil.Process:
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if process.cmdline()[-2:] == ["-m", module]:
                return process
        raise AssertionError(f"no {module} runs")


@contextmanager
def running_service(data_folder: Path, settings: dict[str, str] | None = None) -> Iterator[Service]:
    """Run `tunesmith up` for the length of the block, with these environment variables more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cli.main", "up"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_folder), "--port", str(port)],
        env={**os.environ, **(settings or {})},
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
    client: OpenAI,
    file_id: str,
    *,
    epochs: int = 2,
    seed: int = 7,
    suffix: str = "test",
    model: str = BASE_MODEL,
) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model=model,
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
    client: OpenAI, job_id: str, *statuses: str, silence_seconds: float = 120
) -> FineTuningJob:
    """Poll until the job has one of `statuses`; fail loudly when it ends in another one.

    A busy machine may take long, so the limit is for the time without a new event.
    """
    last_event, limit = None, 0.0
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        assert job.status not in ("succeeded", "failed", "cancelled"), job.to_json()
        if time.monotonic() > limit:
            (newest,) = client.fine_tuning.jobs.list_events(job_id, limit=1).data
            assert newest.id != last_event, f"{job_id} is {job.status}: {newest.message}"
            last_event, limit = newest.id, time.monotonic() + silence_seconds
        time.sleep(0.1)


def messages_of(client: OpenAI, job_id: str) -> list[str]:
    """Return what the job's events say, the oldest first; metrics are left out."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    return [event.message for event in reversed(events) if event.type == "message"]


def metrics_of(client: OpenAI, job_id: str) -> list[dict[str, float]]:
    """Return the figures of the job's metrics events, the oldest first."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    return [event.data for event in reversed(events) if event.type == "metrics"]


def download_adapter(client: OpenAI, job_id: str, folder: Path, step: int | None = None) -> Path:
    """Unpack what a job has made, or the checkpoint at a step, into `folder`."""
    with _archive(client, job_id, step) as archive:
        archive.extractall(folder)
    return folder


def weights_hash(client: OpenAI, job_id: str, step: int | None = None) -> str:
    """Return the SHA-256 of the weights that a job has made, or of the checkpoint at a step."""
    with _archive(client, job_id, step) as archive:
        found: str = json.loads(archive.read("manifest.json"))["weights_sha256"]
    return found


def _archive(client: OpenAI, job_id: str, step: int | None) -> zipfile.ZipFile:
    path = f"/fine_tuning/jobs/{job_id}/adapter" + (f"?step={step}" if step else "")
    content = client.get(path, cast_to=HttpxBinaryResponseContent).read()
    return zipfile.ZipFile(io.BytesIO(content))
