"""The engine behind real HTTP on loopback, with the embedded tiny base."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import uvicorn

import core.models
from core.engine.engine import Engine
from core.spec.base_model import BaseModelSpec
from core.spec.engine_protocol import EngineReport
from core.spec.parity import NumberFormat
from worker.engine.app import create_app
from worker.engine.serve import build_engine, report
from worker.engine.settings import EngineSettings

BASE = BaseModelSpec(id="tiny", source=str(Path(core.models.__file__).parent / "tiny"))
TIMEOUT_SECONDS = 180
"""Only a failing test waits as long; a process may start slowly on a busy machine."""
HELLO = {"type": "chat", "messages": [{"role": "user", "content": "Hello"}]}


def body(prompt: dict = HELLO, adapter: dict | None = None, **sampling) -> dict:
    return {
        "id": "r",
        "base": BASE.model_dump(),
        "adapter": adapter,
        "prompt": prompt,
        "sampling": {"seed": 1, "temperature": 0, "max_tokens": 8} | sampling,
    }


def wait_until(is_true: Callable[[], bool], pause_seconds: float = 0.01) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(pause_seconds)


@dataclass
class Gate:
    """Lets the device take turns only while it is open."""

    opened: threading.Event = field(default_factory=threading.Event)

    def around(self, run: Callable, free_steps: int = 0) -> Callable:
        """Return `run` behind the gate, which the first steps may still pass."""
        passed = iter(range(free_steps))

        def gated(step):
            assert next(passed, None) is not None or self.opened.wait(TIMEOUT_SECONDS)
            return run(step)

        return gated


@dataclass
class Service:
    client: httpx.Client
    engine: Engine
    server: uvicorn.Server

    def generate(self, **request) -> httpx.Response:
        return self.client.post("/generate", json=body(**request))

    def is_idle(self) -> bool:
        return self.engine.is_idle and self.engine.sequences() == (0, 0)


def events(response: httpx.Response) -> list[dict]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def text_of(response: httpx.Response) -> str:
    return "".join(each["text"] for each in events(response) if each["type"] == "delta")


@contextmanager
def serving(
    settings: EngineSettings,
    preload: BaseModelSpec | None = None,
    server_of: Callable[[uvicorn.Config, Engine], uvicorn.Server] = lambda c, _: uvicorn.Server(c),
    computed: NumberFormat | None = None,
) -> Iterator[Service]:
    """Serve; the engine computes as it says, or in the format `computed`."""
    engine, reader = build_engine(settings)
    if computed not in (None, settings.precision):
        residency = engine.runner._bases
        load = residency._load
        residency._load = lambda base: load(replace(base, precision=computed))

    def describe() -> EngineReport:
        return report(engine, settings, reader.precisions)

    app = create_app(engine, reader, describe, preload, settings.key)
    server = server_of(uvicorn.Config(app, log_level="warning"), engine)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=TIMEOUT_SECONDS) as client:
            try:
                wait_until(lambda: server.started)
                yield Service(client, engine, server)
            finally:
                server.should_exit = True
                thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
