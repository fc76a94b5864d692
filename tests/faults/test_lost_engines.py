"""Two real engine processes behind one API; one of them is told to go, or is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.records.engines import living_engines
from tests.api.live import Api, running_api

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 200.0  # far more than needed; machines may be busy
STREAMS = 6
LONG = 950
"""Tokens of an answer that is still being written when its engine is hit."""

END_OF_TURN = "2"


@dataclass
class EngineProcess:
    url: str
    process: subprocess.Popen[bytes]

    def running(self) -> int:
        """The sequences in its batch."""
        metrics = httpx.get(f"{self.url}/metrics", trust_env=False).text
        [line] = [each for each in metrics.splitlines() if each.startswith(RUNNING)]
        return int(float(line.split()[-1]))


RUNNING = "tunesmith_engine_running_sequences "


@dataclass
class Stream:
    """An answer on its way, followed in a thread."""

    lines: list[str] = field(default_factory=list)
    has_begun: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def follow(self, url: str) -> None:
        body = request("Tell me everything.", stream=True, max_tokens=LONG)
        with httpx.stream("POST", url, json=body, timeout=TIMEOUT_SECONDS) as answer:
            for line in answer.iter_lines():
                if line:
                    self.lines.append(line.removeprefix("data: "))
                if len(self.lines) > 3:
                    self.has_begun.set()

    @property
    def ended_well(self) -> bool:
        return self.lines[-1] == "[DONE]"

    @property
    def tokens(self) -> int:
        return sum(bool(json.loads(line)["choices"][0]["delta"]) for line in self.lines[:-1])

    @property
    def error(self) -> Any:
        return json.loads(self.lines[-1]).get("error")


def request(content: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    never_ending = {"temperature": 0, "logit_bias": {END_OF_TURN: -100}}
    return {"model": "tunesmith/tiny", "messages": messages} | never_ending | options


@pytest.fixture
def api(tmp_path: Path, sqlite_url: str) -> Iterator[Api]:
    with running_api(tmp_path, sqlite_url, engine_key="s3cret") as api:
        yield api


@contextmanager
def engine_process(api: Api, name: str) -> Iterator[EngineProcess]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {
        "TUNESMITH_ENGINE_API_URL": api.url,
        "TUNESMITH_ENGINE_KEY": "s3cret",
        "TUNESMITH_ENGINE_PORT": str(port),
        "TUNESMITH_ENGINE_PRECISION": "fp32",
        # streams end by themselves, however slow the machine is
        "TUNESMITH_ENGINE_DRAIN_SECONDS": str(TIMEOUT_SECONDS),
        "TUNESMITH_ENGINE_CACHE_FOLDER": str(api.folder / name),
        "TUNESMITH_ENGINE_THREADS": "1",
        "TUNESMITH_ENGINE_MAX_BATCH": str(STREAMS - 1),  # so that both engines are used
        "TUNESMITH_STORAGE_FOLDER": str(api.folder / "storage"),
    }
    command = [sys.executable, "-m", "worker.engine"]
    with (api.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield EngineProcess(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def engines(api: Api) -> Iterator[list[EngineProcess]]:
    """Two engines that have registered."""
    with ExitStack() as stack:
        engines = [stack.enter_context(engine_process(api, name)) for name in ("one", "two")]
        wait_until(lambda: set(known(api)) == {engine.url for engine in engines})
        yield engines


def known(api: Api) -> list[str]:
    with api.database.reading() as session:
        return [engine.url for engine in living_engines(session)]


@pytest.fixture
def streams(api: Api, engines: list[EngineProcess]) -> Iterator[list[Stream]]:
    """Streams that have begun, on both engines."""
    streams = [Stream() for _ in range(STREAMS)]
    for stream in streams:
        url = f"{api.url}/v1/chat/completions"
        stream.thread = threading.Thread(target=stream.follow, args=[url])
        stream.thread.start()
    for stream in streams:
        assert stream.has_begun.wait(TIMEOUT_SECONDS)
    assert all(engine.running() for engine in engines), "one engine has all the work"
    yield streams
    finish(streams)


def finish(streams: list[Stream]) -> None:
    for stream in streams:
        assert stream.thread is not None
        stream.thread.join(TIMEOUT_SECONDS)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


def ask(api: Api) -> httpx.Response:
    body = request("Hello", max_tokens=2)
    url = f"{api.url}/v1/chat/completions"
    return httpx.post(url, json=body, timeout=TIMEOUT_SECONDS)


def test_an_engine_told_to_go_ends_its_streams_and_takes_no_new_ones(
    api: Api, engines: list[EngineProcess], streams: list[Stream]
) -> None:
    staying, leaving = sorted(engines, key=EngineProcess.running)
    leaving.process.send_signal(signal.SIGTERM)
    wait_until(lambda: known(api) == [staying.url])
    assert ask(api).status_code == 200
    assert leaving.process.poll() is None and leaving.running(), "its streams were over too early"
    assert [ask(api).status_code for _ in range(5)] == [200] * 5
    finish(streams)
    assert all(stream.ended_well for stream in streams)
    assert {stream.tokens for stream in streams} == {streams[0].tokens}
    assert leaving.process.wait(TIMEOUT_SECONDS) in (0, -signal.SIGTERM)
    assert ask(api).status_code == 200
    assert known(api) == [staying.url]


def test_no_request_fails_while_an_engine_goes(api: Api, engines: list[EngineProcess]) -> None:
    statuses: list[int] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            statuses.append(ask(api).status_code)

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    wait_until(lambda: len(statuses) > 20)
    engines[0].process.send_signal(signal.SIGTERM)
    engines[0].process.wait(TIMEOUT_SECONDS)
    count = len(statuses)
    wait_until(lambda: len(statuses) > count + 20)
    is_over.set()
    for asker in askers:
        asker.join(TIMEOUT_SECONDS)
    assert set(statuses) == {200}


def test_an_engine_that_is_killed_takes_its_streams_along_and_nothing_else(
    api: Api, engines: list[EngineProcess], streams: list[Stream]
) -> None:
    survivor, victim = sorted(engines, key=EngineProcess.running)
    lost = victim.running()
    victim.process.kill()
    assert ask(api).status_code == 200
    finish(streams)
    broken = [stream for stream in streams if not stream.ended_well]
    assert len(broken) == lost > 0
    assert {stream.error["code"] for stream in broken} == {"engine_unavailable"}
    assert len(streams) - lost > 0, "nobody was left to be spared"
    assert [ask(api).status_code for _ in range(5)] == [200] * 5
    assert survivor.process.poll() is None
