"""llama.cpp's HTTP server as a peer of the serving benchmark: one process, loaded once.

It batches the slots of one adapter only, so requests of 8 adapters run as 8 groups, one after the
other. bench/README.md says which settings were tried.
"""

import contextlib
import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.gguf_files import write_adapter, write_base

BINARY = Path(__file__).parents[1] / "build/llama.cpp/bin/llama-server"
"""Where `make llama-server` puts it."""
START_SECONDS = 120
ANSWER_SECONDS = 600


@dataclass(frozen=True)
class Slots:
    """How many sequences run at once, of how many tokens at most, on how many threads."""

    number: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class LlamaServer:
    """A running server; it ends with its context."""

    port: int

    def answer(self, requests: Sequence[bytes]) -> list[list[int]]:
        """Send all requests at once and return the tokens of each answer."""
        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(self._complete, requests))

    def _complete(self, request: bytes) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/completion", request, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status != 200:
            raise SystemExit(f"llama-server answered {response.status}: {answer[:500]!r}")
        tokens: list[int] = json.loads(answer)["tokens"]
        return tokens


def completion_requests(
    prompts: Sequence[Sequence[int]], new_tokens: int, adapters: int
) -> list[bytes]:
    """Return bodies that ask for the likeliest tokens, in turns with so many adapters or none."""
    bodies = []
    for number, prompt in enumerate(prompts):
        body = {
            "prompt": list(prompt),
            "n_predict": new_tokens,
            "ignore_eos": True,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "lora": [{"id": number % adapters, "scale": 1.0}] if adapters else [],
            "return_tokens": True,
            "response_fields": ["tokens"],
        }
        bodies.append(json.dumps(body).encode())
    return bodies


@contextlib.contextmanager
def llama_server(
    binary: Path, base: Path, adapters: Sequence[Path], slots: Slots
) -> Iterator[LlamaServer]:
    """Serve the base and the adapters, once converted, until the context ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_base(base, folder / "base.gguf")
        files = [folder / f"adapter-{number}.gguf" for number in range(len(adapters))]
        for adapter, file in zip(adapters, files, strict=True):
            write_adapter(adapter, base, file)
        port, log = _free_port(), folder / "log"
        command = _command(binary, folder / "base.gguf", files, slots, port)
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, port, log)
            yield LlamaServer(port)
        finally:
            process.terminate()
            process.wait()


def _command(
    binary: Path, base: Path, adapters: Sequence[Path], slots: Slots, port: int
) -> list[str]:
    """Return how the server is started; bench/README.md says which settings were tried."""
    options: dict[str, object] = {
        "--model": base,
        # scale 0: nothing is added unless a request names an adapter
        "--lora-scaled": ",".join(f"{adapter}:0" for adapter in adapters),
        "--host": "127.0.0.1",
        "--port": port,
        "--threads": slots.threads,
        "--parallel": slots.number,
        "--ctx-size": slots.number * slots.tokens,
        "--cache-type-k": "f32",
        "--cache-type-v": "f32",
        "--flash-attn": "off",
    }
    pairs = [text for option in options.items() for text in map(str, option)]
    return [str(binary), *pairs, "--offline", "--no-ui"]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.1)
    raise SystemExit(f"llama-server did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
