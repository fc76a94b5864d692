"""Hostile requests are refused with the field that is wrong, and hold up nobody else's stream."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.hostile_bodies import Hostile, bodies, send
from bench.stream_reader import follow, to_api
from bench.streams import watch
from tests.api.live import running_api
from tests.end_to_end.service import running_service
from tests.worker.serving import serving
from worker.engine.settings import EngineSettings

HOSTILE = bodies()
LOOP_SECONDS = 0.1
"""What one body may cost an event loop in all: no stall that it causes is longer."""


@dataclass(frozen=True)
class Loops:
    """API and engine in threads of this process, and the CPU clocks of their event loops."""

    client: httpx.Client
    clocks: list[int]

    def cpu_seconds(self) -> list[float]:
        return [time.clock_gettime(clock) for clock in self.clocks]


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path) -> Iterator[Loops]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tunesmith.db").write_bytes(_sqlite_template.read_bytes())
    database_url = f"sqlite:///{folder}/tunesmith.db"
    settings = EngineSettings(storage_folder=folder / "storage", cache_folder=folder / "cache")
    others = set(threading.enumerate())
    with serving(settings) as engine:
        engine_url = str(engine.client.base_url).rstrip("/")
        with (
            running_api(folder, database_url, engine_url) as api,
            httpx.Client(base_url=api.url, timeout=120, trust_env=False) as client,
        ):
            # the threads that tests start have no name but that of their target, `Server.run`
            started = [each for each in threading.enumerate() if each not in others]
            servers = [each for each in started if each.name.endswith("(run)")]
            assert len(servers) == 2
            yield Loops(client, [time.pthread_getcpuclockid(each.ident) for each in servers])


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda each: each.name)
def test_a_refusal_names_the_field_and_costs_the_loops_little(
    loops: Loops, hostile: Hostile
) -> None:
    spent = []
    for _ in range(2):  # the first one may find something that is still to be loaded
        before = loops.cpu_seconds()
        outcome = send(loops.client, hostile)
        spent.append(max(b - a for a, b in zip(before, loops.cpu_seconds(), strict=True)))
        if hostile.may_be_answered and outcome["status"] == 200:
            continue
        assert outcome["status"] in (400, 413), outcome
        error = outcome["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == ("invalid_request_error", hostile.param)
        assert len(error["message"]) < 2000
    assert min(spent) < LOOP_SECONDS


def test_the_corpus_is_large_and_every_body_differs() -> None:
    assert len({(each.path, each.content) for each in HOSTILE}) == len(HOSTILE) >= 80


def test_a_stream_goes_on_evenly_while_all_of_them_come_in(tmp_path: Path) -> None:
    """Compared with the same stream left alone, since a busy machine makes gaps of its own.

    `make bench-streams` prints the figures of a quiet one.
    """
    with running_service(tmp_path) as service:
        port = int(service.url.rsplit(":", 1)[1])
        asyncio.run(follow(port, to_api(50)))
        turns = [asyncio.run(watch(port, attack, 1)) for attack in (False, True, False, True)]
        log = (tmp_path / "logs" / "api.log").read_text()
    print(*turns, sep="\n")
    alone_ms = max(turn.longest for turn in turns if not turn.attack)
    attacked_ms = min(turn.longest for turn in turns if turn.attack)
    assert all(turn.refused > 20 for turn in turns if turn.attack)
    assert attacked_ms < 100 + 2 * alone_ms
    assert "Traceback" not in log
