"""`python -m worker.vllm`: starts from the environment, registers, answers, and ends on SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx

from tests.worker.reporting import reporting_desk
from tests.worker.serving import BASE, TIMEOUT_SECONDS, body, wait_until


def test_the_process_registers_answers_and_takes_leave(fake, storage, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with reporting_desk() as desk:
        environment = {
            **os.environ,
            "TUNESMITH_ENGINE_PORT": str(port),
            "TUNESMITH_ENGINE_API_URL": desk.url,
            "TUNESMITH_ENGINE_CACHE_FOLDER": str(tmp_path),
            "TUNESMITH_ENGINE_VLLM_URL": fake.url,
            "TUNESMITH_ENGINE_VLLM_KEY": "s3cret",
            "TUNESMITH_ENGINE_VLLM_BASE": BASE.model_dump_json(),
            "TUNESMITH_STORAGE_FOLDER": str(storage),
        }
        process = subprocess.Popen([sys.executable, "-m", "worker.vllm"], env=environment)
        try:
            assert desk.has_heard.wait(TIMEOUT_SECONDS)
            assert desk.reports[0].bases == (BASE,)
            url = f"http://127.0.0.1:{port}"
            answer = httpx.post(f"{url}/generate", json=body(), timeout=TIMEOUT_SECONDS)
            assert json.loads(answer.text.splitlines()[-1])["type"] == "choice_finished"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_SECONDS) in (0, -signal.SIGTERM)
        wait_until(lambda: desk.left == [url])
