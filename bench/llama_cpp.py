"""llama.cpp's HTTP server as a peer of the serving benchmark: one process, loaded once.

It batches the slots of one adapter only, and of those only neighbors, so requests of 8 adapters
run as 8 groups, one after the other. bench/README.md says which settings were tried.
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
"""The path at which `make llama-server` installs it."""
START_SECONDS = 120
ANSWER_SECONDS = 600


@dataclass(frozen=True)
class Cache:
    """The type of the KV cache, with flash attention if that is faster.

    A token may be `near_tie_nats` less likely than the best one at its position: sums in another
    order, or of rounded values, exchange two that are so close.
    """

    name: str
    dtype: str
    flash_attention: str
    near_tie_nats: float


CACHES = (
    Cache("fp32 cache", "f32", "off", near_tie_nats=1e-3),
    Cache("fp16 cache", "f16", "on", near_tie_nats=1e-2),
)
"""The first uses our precision, the second is llama.cpp's default."""


@dataclass(frozen=True)
class Slots:
    """The numbers of concurrent sequences, of tokens per sequence, and of threads."""

    number: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class LlamaServer:
    """A running server, stopped at the end of its context."""

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
    prompts: Sequence[Sequence[int]], new_tokens: int, adapters: int, *, placed: bool = True
) -> list[bytes]:
    """Return bodies for greedy answers, cycling through this number of adapters, or without one.

    `placed` gives requests of one adapter adjacent slots: others never share a batch.
    """
    adapter_of = [number % max(adapters, 1) for number in range(len(prompts))]
    by_adapter = sorted(range(len(prompts)), key=adapter_of.__getitem__)
    bodies = []
    for number, prompt in enumerate(prompts):
        body = {
            "prompt": list(prompt),
            "n_predict": new_tokens,
            "ignore_eos": True,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "id_slot": by_adapter.index(number) if placed else -1,
            "lora": [{"id": adapter_of[number], "scale": 1.0}] if adapters else [],
            "return_tokens": True,
            "response_fields": ["tokens"],
        }
        bodies.append(json.dumps(body).encode())
    return bodies


@contextlib.contextmanager
def llama_server(
    binary: Path, base: Path, adapters: Sequence[Path], slots: Slots, cache: Cache
) -> Iterator[LlamaServer]:
    """Convert and serve the base and the adapters until the context ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_base(base, folder / "base.gguf")
        files = [folder / f"adapter-{number}.gguf" for number in range(len(adapters))]
        for adapter, file in zip(adapters, files, strict=True):
            write_adapter(adapter, base, file)
        port, log = _free_port(), folder / "log"
        command = [
            str(binary),
            *("--host", "127.0.0.1", "--port", str(port), "--offline", "--no-ui"),
            *_model_options(folder / "base.gguf", files),
            *_speed_options(slots, cache),
        ]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, port, log)
            yield LlamaServer(port)
        finally:
            process.terminate()
            process.wait()


def _model_options(base: Path, adapters: Sequence[Path]) -> list[str]:
    """Load everything; scale 0 disables an adapter unless a request names it."""
    return ["--model", str(base), "--lora-scaled", ",".join(f"{file}:0" for file in adapters)]


def _speed_options(slots: Slots, cache: Cache) -> list[str]:
    """Return the fastest settings; bench/README.md lists the others that were tried."""
    return [
        *("--threads", str(slots.threads), "--parallel", str(slots.number)),
        *("--ctx-size", str(slots.number * slots.tokens)),
        *("--cache-type-k", cache.dtype, "--cache-type-v", cache.dtype),
        *("--flash-attn", cache.flash_attention),
        *("--slot-prompt-similarity", "0"),  # ignore the slots' caches of earlier rounds
        *("--cache-ram", "0", "--log-verbosity", "1"),
    ]


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
