"""The engine is killed while it streams: clients are told, and the next request works."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.end_to_end.service import BASE_MODEL, Service, running_service

STREAMS = 50
LIMIT_SECONDS = 5.0
USUAL_ANSWERS = 50
"""On a busy machine the limit is as long as so many answers take, one after another."""
TIMEOUT_SECONDS = 180.0
ENDLESS = {
    "model": BASE_MODEL,
    "messages": [{"role": "user", "content": "Tell me everything about strings."}],
    "max_tokens": 900,
    "logit_bias": {"0": -100, "2": -100},  # it may not end by itself
}
BEATS = {"workers", "engines"}
"""Tables in which processes say that they are alive."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    room = {"TUNESMITH_ENGINE_MAX_BATCH": str(STREAMS)}
    with running_service(tmp_path_factory.mktemp("killed-engine"), room) as service:
        yield service


@dataclass
class Followed:
    """What one client saw of its stream."""

    text: str = ""
    lines: list[str] = field(default_factory=list)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow_raw(self, client: httpx.AsyncClient) -> None:
        body = ENDLESS | {"stream": True}
        async with client.stream("POST", "/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line:
                    self.lines.append(line)
                if len(self.lines) > 3:
                    self.has_begun.set()

    async def follow(self, client: openai.AsyncOpenAI) -> str:
        """Return the error's code, or the finish reason of an answer that was read to its end."""
        finish_reason: str | None = None
        try:
            async for chunk in await client.chat.completions.create(**ENDLESS, stream=True):
                self.text += chunk.choices[0].delta.content or ""
                finish_reason = chunk.choices[0].finish_reason
                if self.text:
                    self.has_begun.set()
        except openai.APIError as error:
            return str(error.code)
        return finish_reason or "cut off without a word"


def engine_child(service: Service) -> psutil.Process:
    """The process that holds the model; its parent is the one that `up` started."""
    for process in psutil.Process(service.process.pid).children(recursive=True):
        is_child = process.ppid() != service.process.pid
        if is_child and process.cmdline()[-2:] == ["-m", "worker.engine"]:
            return process
    raise AssertionError("no engine runs")


def contents(service: Service) -> dict[str, list[tuple]]:
    """Every row of the database, by table, once SQLite has found its file sound."""
    with sqlite3.connect(service.data_folder / "tunesmith.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: database.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
            for (name,) in names
            if name not in BEATS
        }


async def ask(client: openai.AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(
        model=BASE_MODEL, messages=ENDLESS["messages"], max_tokens=8, temperature=0
    )
    return answer.choices[0].message.content or ""


def test_all_streams_end_with_an_error_and_the_next_request_works(service: Service) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    asyncio.run(kill_under_load(service, random.Random(seed)))


async def kill_under_load(service: Service, draw: random.Random) -> None:
    url = f"{service.url}/v1"
    stock = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT_SECONDS)
    raw = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)
    async with stock, raw:
        said = await ask(stock)
        asked_at = time.monotonic()
        assert await ask(stock) == said
        usual_seconds = time.monotonic() - asked_at
        before = contents(service)
        streams = [Followed() for _ in range(STREAMS)]
        tasks = [asyncio.create_task(each.follow(stock)) for each in streams[1:]]
        raw_task = asyncio.create_task(streams[0].follow_raw(raw))
        await asyncio.wait_for(
            asyncio.gather(*(each.has_begun.wait() for each in streams)), TIMEOUT_SECONDS
        )
        await asyncio.sleep(draw.uniform(0, 0.5))
        assert not any(task.done() for task in (*tasks, raw_task)), "no stream is open any more"

        victim = engine_child(service)
        killed_at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        assert await ask(stock) == said
        seconds = time.monotonic() - killed_at

        ends = await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_SECONDS)
        await asyncio.wait_for(raw_task, TIMEOUT_SECONDS)
    assert engine_child(service).pid != victim.pid
    # a client that reads slowly may find an answer that was complete before the engine died
    broken = ends.count("engine_unavailable")
    assert broken and broken + ends.count("length") == len(ends), ends
    assert not any("[DONE]" in line for line in streams[0].lines)
    told = json.loads(streams[0].lines[-1].removeprefix("data: "))["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert (told["type"], told["code"]) == ("server_error", "engine_unavailable")
    print(f"{broken + 1} of {STREAMS} streams broken; the next answer came after {seconds:.2f} s")
    assert seconds < max(LIMIT_SECONDS, USUAL_ANSWERS * usual_seconds)
    assert contents(service) == before


def test_nothing_is_left_of_the_broken_streams(service: Service) -> None:
    """The API holds no connection to the engine for them, and serves as many again."""
    api = next(
        process
        for process in psutil.Process(service.process.pid).children()
        if process.cmdline()[-2:] == ["-m", "api"]
    )
    assert len(api.net_connections("tcp")) < STREAMS
    assert Path(service.data_folder / "logs" / "api.log").read_text().count("Traceback") == 0
