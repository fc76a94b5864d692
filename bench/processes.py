"""Starts and stops processes of the service for a benchmark."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from migrations.upgrade import upgrade

TIMEOUT_SECONDS = 180.0


@contextmanager
def process(
    *command: str, url: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m command…` during the block, which begins when it is ready."""
    running = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not _answers(url):
            if running.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not become ready.")
            time.sleep(0.1)
        yield running
    finally:
        running.terminate()
        running.wait()


@contextmanager
def api(folder: Path) -> Iterator[int]:
    """Run the API; yield its port."""
    with api_process(folder) as (_, port):
        yield port


@contextmanager
def api_process(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the API; yield its process and port."""
    port = free_port()
    database_url = f"sqlite:///{folder / 'tunesmith.db'}"
    upgrade(database_url)
    environment = {
        "TUNESMITH_DATABASE_URL": database_url,
        "TUNESMITH_BROKER_URL": f"folder://{folder / 'broker'}",
        "TUNESMITH_STORAGE_FOLDER": str(folder / "storage"),
        "TUNESMITH_PORT": str(port),
    }
    url = f"http://127.0.0.1:{port}/healthz"
    with process("api", url=url, environment=environment) as running:
        yield running, port


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[int]:
    """Run `tunesmith up` on a data folder; yield its port."""
    port = free_port()
    command = "cli.main", "up", "--data-dir", str(folder), "--port", str(port)
    with process(*command, url=f"http://127.0.0.1:{port}/readyz", environment=settings):
        yield port


def catalog_of(folder: Path, base_id: str, base: Path) -> str:
    """Write a catalog file with one base; return its path, for TUNESMITH_CATALOG_FILE."""
    catalog = folder / "catalog.toml"
    catalog.write_text(f'[[bases]]\nid = "{base_id}"\nsource = "{base}"\n')
    return str(catalog)


def require_success(client: OpenAI, job: FineTuningJob, poll_seconds: float) -> None:
    """Wait until the job has ended; SystemExit if it failed."""
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(poll_seconds)
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        raise SystemExit(f"The job is {job.status}: {job.error}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False
