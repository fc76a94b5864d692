"""Measures start-up times of the service: `make bench-service`. Prints a table of medians.

Measures running processes, so the machine should otherwise be idle.
"""

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from openai import OpenAI

from bench.previews import mask_previews
from migrations.upgrade import upgrade

DATASET = Path(__file__).parents[1] / "examples" / "python_docs" / "train.jsonl"
REPEATS = 5


def main() -> None:
    for name, figure, limit in (*api_process(), child_start(), first_step(), *mask_previews()):
        print(f"{name:52} {figure:>10} (limit {limit})")


def api_process() -> list[tuple[str, str, str]]:
    """Measure the time from start to the first response, resident memory, and imports."""
    seconds, memory_bytes = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder, _api(Path(folder)) as (process, port, began):
            while not _is_live(port):
                time.sleep(0.005)
            seconds.append(time.monotonic() - began)
            memory_bytes.append(psutil.Process(process.pid).memory_info().rss)
    probe = "import sys, api.app; print(sum(m.split('.')[0] == 'torch' for m in sys.modules))"
    modules = subprocess.check_output([sys.executable, "-c", probe], text=True).strip()
    return [
        ("API, start to first answer", f"{statistics.median(seconds):.2f} s", "1.5 s"),
        ("API, resident memory", f"{statistics.median(memory_bytes) / 1e6:.0f} MB", "150 MB"),
        ("API, torch modules imported", modules, "0"),
    ]


def child_start() -> tuple[str, str, str]:
    """Measure the time from the request of a training child to its first event, with a warm server.

    In a process of its own: a forked child imports its parent's main module again, and the
    worker's imports nothing.
    """
    timing = f"""
import statistics, time
from worker.launch import warm_up
warm_up()
times = []
for _ in range({REPEATS}):
    times.append(time.monotonic())
    warm_up()
    times[-1] = time.monotonic() - times[-1]
print(f"{{statistics.median(times):.3f}} s")
"""
    figure = subprocess.check_output([sys.executable, "-c", timing], text=True).strip()
    return ("Training child, start to first word", figure, "0.2 s")


def first_step() -> tuple[str, str, str]:
    """Measure the time from the client's POST to the first optimizer step that the API reports."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli.main", "up", "--data-dir", folder]
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            seconds = statistics.median(_submit_and_wait(client) for _ in range(REPEATS))
        finally:
            process.terminate()
            process.wait()
    return ("Submit to first optimizer step, tiny base", f"{seconds:.2f} s", "1.5 s")


def _submit_and_wait(client: OpenAI) -> float:
    with DATASET.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(model="tunesmith/tiny", training_file=file.id)
    while client.fine_tuning.jobs.retrieve(job.id).to_dict()["progress"]["step"] == 0:  # type: ignore[index]
        time.sleep(0.01)
    seconds = time.monotonic() - began
    client.fine_tuning.jobs.cancel(job.id)
    time.sleep(2.0)  # until the worker has released it
    return seconds


@contextmanager
def _api(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    url = f"sqlite:///{folder / 'tunesmith.db'}"
    upgrade(url)
    port = _free_port()
    environment = {
        "TUNESMITH_DATABASE_URL": url,
        "TUNESMITH_BROKER_URL": f"folder://{folder / 'broker'}",
        "TUNESMITH_STORAGE_FOLDER": str(folder / "storage"),
        "TUNESMITH_PORT": str(port),
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield process, port, began
    finally:
        process.terminate()
        process.wait()


def _is_live(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
