"""A running vLLM on the CPU, for those who have one; docs/decisions/0011 says how to get it."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.worker.serving import BASE

START_SECONDS = 300
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
OPTIONS = (
    *("--model", BASE.source, "--served-model-name", "base", "--dtype", "float32"),
    *("--enable-lora", "--max-lora-rank", "16", "--max-loras", "4", "--max-num-seqs", "16"),
    *("--enforce-eager", "--api-key", "s3cret"),
    *("--structured-outputs-config.backend", "guidance"),
)


@contextmanager
def real_vllm(python: str) -> Iterator[str]:
    """Run a server for the length of the block and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), *OPTIONS],
            env=environment | ENVIRONMENT,
            stdout=log,
            stderr=log,
            cwd="/",
        )
        try:
            _wait_until_up(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_up(url: str, process: subprocess.Popen, log) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    log.seek(0)
    raise AssertionError(log.read()[-4000:].decode())
