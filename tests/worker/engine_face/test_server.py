"""An engine that is told to end: it refuses what is new and ends what it has begun."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.engine.policy.request import BaseKey
from core.spec.base_model import BaseModelSpec
from tests.worker.reporting import ReportingDesk, reporting_desk
from tests.worker.serving import (
    BASE,
    TIMEOUT_SECONDS,
    Gate,
    Service,
    body,
    serving,
    wait_until,
)
from worker.engine.serve import build_engine, report
from worker.engine.settings import EngineSettings
from worker.engine_face import registration
from worker.engine_face.registration import Registration
from worker.engine_face.server import EngineServer


@pytest.fixture
def desk() -> Iterator[ReportingDesk]:
    with reporting_desk() as desk:
        yield desk


@pytest.fixture
def settings(tmp_path, desk) -> EngineSettings:
    return EngineSettings(
        storage_folder=tmp_path / "storage",
        cache_folder=tmp_path / "cache",
        precision="fp32",
        max_batch=4,
        url="http://127.0.0.1:8001",
        api_url=desk.url,
    )


@contextmanager
def registered(settings: EngineSettings, drain_seconds: float) -> Iterator[Service]:
    def server_of(config, engine) -> EngineServer:
        registered = Registration(settings.api_url, None, lambda: report(engine, settings))
        return EngineServer(config, engine, registered, drain_seconds)

    with serving(settings, server_of=server_of) as service:
        yield service


@contextmanager
def open_stream(service: Service) -> Iterator[tuple[Iterator[str], Gate]]:
    """A stream that has begun, and the gate that holds up the rest of it."""
    gate = Gate()
    runner = service.engine.runner
    runner.run = gate.around(runner.run, free_steps=1)
    try:
        with service.client.stream("POST", "/generate", json=body(max_tokens=3)) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines))["type"] == "started"
            yield lines, gate
    finally:
        gate.opened.set()


def test_reports_say_what_is_in_memory_and_what_there_is_to_do(settings, desk):
    with registered(settings, drain_seconds=0) as service:
        wait_until(lambda: bool(desk.reports))
        first = desk.reports[-1]
        assert (first.url, first.status, first.bases) == ("http://127.0.0.1:8001", "ready", ())
        assert (first.running, first.waiting, first.max_running) == (0, 0, 4)
        with open_stream(service) as (lines, gate):
            now = report(service.engine, settings)
            assert (now.bases, now.running, now.waiting) == ((BASE,), 1, 0)
            gate.opened.set()
            list(lines)
    wait_until(lambda: bool(desk.left))
    assert desk.left == ["http://127.0.0.1:8001"]


def test_what_has_begun_ends_well_and_what_is_new_is_refused(settings, desk, monkeypatch):
    monkeypatch.setattr(registration, "BEAT_SECONDS", 10 * TIMEOUT_SECONDS)  # what is said at once
    with registered(settings, drain_seconds=TIMEOUT_SECONDS) as service:
        with open_stream(service) as (lines, gate):
            service.server.should_exit = True  # as SIGTERM does
            wait_until(lambda: bool(desk.reports) and desk.reports[-1].status == "draining")
            refused = service.generate()
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                503,
                "engine_stopping",
            )
            assert service.client.get("/healthz").status_code == 200
            assert desk.left == []
            gate.opened.set()
            last = json.loads(list(lines)[-1])
        assert (last["type"], last["completion_tokens"]) == ("choice_finished", 3)
        wait_until(lambda: bool(desk.left))


def test_what_takes_too_long_is_ended_with_an_error(settings, desk):
    with registered(settings, drain_seconds=0.2) as service, open_stream(service) as (lines, gate):
        service.server.should_exit = True
        wait_until(lambda: bool(desk.left))
        gate.opened.set()
        last = json.loads(list(lines)[-1])
        assert (last["type"], last["code"]) == ("failed", "engine_stopping")


def test_an_idle_engine_does_not_wait(settings, desk):
    with registered(settings, drain_seconds=10 * TIMEOUT_SECONDS) as service:
        service.server.should_exit = True
        wait_until(lambda: bool(desk.left))


def test_a_model_that_was_trained_whole_is_reported_by_the_hash_of_its_bundle(settings):
    sha256 = "0" * 64
    whole = BaseModelSpec(id="tiny/000000000000", source=str(settings.cache_folder / sha256))
    engine, _reader = build_engine(settings)
    engine.runner.resident_bases = lambda: [BaseKey(BASE), BaseKey(whole)]
    said = report(engine, settings)
    assert (said.bases, said.bundles) == ((BASE, whole), (sha256,))
