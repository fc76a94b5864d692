"""The engine as a process of its own, which is a parent and the child that serves."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.processes import is_alive
from tests.worker.serving import BASE, TIMEOUT_SECONDS, body, wait_until


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen
    address: str

    def child(self) -> psutil.Process:
        [child] = psutil.Process(self.process.pid).children()
        return child

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def generate(self) -> str:
        """Ask on a connection of its own: one that a dead child held is of no use."""
        request = body(max_tokens=3)
        options = {"timeout": TIMEOUT_SECONDS, "trust_env": False}
        return httpx.post(f"{self.address}/generate", json=request, **options).text


@contextmanager
def engine_process(folder: Path, **settings: str) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {
        "TUNESMITH_ENGINE_API_URL": "http://127.0.0.1:9",  # where nobody answers
        "TUNESMITH_ENGINE_PORT": str(port),
        "TUNESMITH_ENGINE_PRECISION": "fp32",
        "TUNESMITH_ENGINE_CACHE_FOLDER": str(folder / "cache"),
        "TUNESMITH_ENGINE_THREADS": "2",
        "TUNESMITH_STORAGE_FOLDER": str(folder / "storage"),
    }
    process = subprocess.Popen([sys.executable, "-m", "worker.engine"], env=environment | settings)
    try:
        yield Running(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait(TIMEOUT_SECONDS)


def test_it_starts_by_name_replaces_a_dead_child_and_ends_on_sigterm(tmp_path: Path) -> None:
    preload = {"TUNESMITH_ENGINE_PRELOAD_BASE": BASE.model_dump_json()}
    with engine_process(tmp_path, **preload) as running:
        wait_until(running.answers, 0.1)
        first = running.child()
        answer = running.generate()
        assert '"choice_finished"' in answer
        first.kill()
        # no second try: a request that comes while there is no child waits for the next one
        assert running.generate() == answer
        second = running.child()
        assert second.pid != first.pid
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(TIMEOUT_SECONDS) == 0
        wait_until(lambda: not is_alive(second))


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with engine_process(tmp_path) as running:
        wait_until(running.answers, 0.1)
        child = running.child()
        running.process.kill()
        wait_until(lambda: not is_alive(child))


def test_an_engine_that_cannot_serve_ends_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    with engine_process(tmp_path, TUNESMITH_ENGINE_MAX_STEP_TOKENS="1") as running:
        assert running.process.wait(TIMEOUT_SECONDS) == 1
