"""The engine as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

import core.models

PATIENCE_SECONDS = 180
"""Only a failing test waits as long; a process may start slowly on a busy machine."""


def test_the_process_starts_by_name_answers_and_ends_on_sigterm(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {
        "TUNESMITH_ENGINE_API_URL": "http://127.0.0.1:9",  # where nobody answers
        "TUNESMITH_ENGINE_PORT": str(port),
        "TUNESMITH_ENGINE_PRECISION": "fp32",
        "TUNESMITH_ENGINE_CACHE_FOLDER": str(tmp_path / "cache"),
        "TUNESMITH_ENGINE_THREADS": "1",
        "TUNESMITH_STORAGE_FOLDER": str(tmp_path / "storage"),
    }
    request = {
        "id": "one",
        "base": {"id": "tiny", "source": str(Path(core.models.__file__).parent / "tiny")},
        "prompt": {"type": "chat", "messages": [{"role": "user", "content": "Hello"}]},
        "sampling": {"max_tokens": 3, "temperature": 0, "seed": 0},
    }
    process = subprocess.Popen([sys.executable, "-m", "worker.serve"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
            wait_until_up(client)
            assert '"choice_finished"' in client.post("/generate", json=request).text
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)


def wait_until_up(client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.get("/healthz").is_success:
                return
        except httpx.ConnectError:
            time.sleep(0.25)
    raise AssertionError("the engine does not answer")
