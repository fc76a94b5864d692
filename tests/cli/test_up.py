"""`tunesmith up` where it refuses; where it runs, the end-to-end tests see it."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.settings import (
    TRAINING_SPINS,
    EmbeddedService,
    child_environment,
    engine_environment,
    training_environment,
    worker_environment,
)
from tests.worker.workshop import ROOT


def run_up(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "up", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def test_second_service_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        ended = run_up("--data-dir", str(tmp_path), "--port", str(free_port()))
    assert ended.returncode == 1
    assert f"process {os.getpid()}" in ended.stderr and "--data-dir" in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "tunesmith.db").exists()


def test_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_up("--data-dir", str(tmp_path / "data"), "--port", str(port))
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr and "--port" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_open_address_without_a_key_is_refused(tmp_path: Path) -> None:
    arguments = ["--data-dir", str(tmp_path), "--host", "0.0.0.0", "--port", str(free_port())]
    ended = run_up(*arguments)
    assert ended.returncode == 1
    assert "TUNESMITH_API_KEY" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_wrong_port_is_refused(port: str) -> None:
    ended = run_up("--port", port)
    assert ended.returncode == 2
    assert "--port" in ended.stderr


def test_children_get_our_settings_and_keep_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_API_KEY", "secret")
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("TUNESMITH_STORAGE_URL", "s3://elsewhere")
    service = EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000)
    environment = child_environment(service)
    assert environment["TUNESMITH_API_KEY"] == "secret"
    assert environment["TUNESMITH_DATABASE_URL"] == "sqlite:////data/tunesmith.db"
    assert environment["TUNESMITH_STORAGE_FOLDER"] == "/data/storage"
    assert environment["TUNESMITH_STORAGE_URL"] == ""  # with both, no process would start
    assert environment["TUNESMITH_ENGINE_URL"] == "http://127.0.0.1:9000"
    assert environment["TUNESMITH_ENGINE_API_URL"] == "http://127.0.0.1:8000"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "GLIBC_TUNABLES" not in environment


def test_the_engine_keeps_the_memory_of_its_steps_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    service = EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000)
    kept = "glibc.malloc.trim_threshold=268435456"
    assert kept in engine_environment(service)["GLIBC_TUNABLES"].split(":")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert engine_environment(service)["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_only_the_worker_that_trains_keeps_the_memory_of_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    service = EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000)
    kept = "glibc.malloc.trim_threshold=8589934592"
    assert kept in training_environment(service, "worker-1")["GLIBC_TUNABLES"].split(":")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert training_environment(service, "worker-1")["GOMP_SPINCOUNT"] == TRAINING_SPINS
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in training_environment(service, "worker-1")
    assert "GLIBC_TUNABLES" not in worker_environment(service, "worker-2")


def test_a_run_takes_all_cores_of_an_idle_engine_unless_the_user_limits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.delenv("TUNESMITH_THREADS", raising=False)
    environment = worker_environment(service, "worker-1")
    assert environment["TUNESMITH_ENGINE_BUSY_FILE"] == "/data/engine-is-busy"
    assert environment["TUNESMITH_ENGINE_THREADS"] == "3"
    assert "TUNESMITH_THREADS" not in environment
    monkeypatch.setenv("TUNESMITH_THREADS", "2")
    assert worker_environment(service, "worker-1")["TUNESMITH_THREADS"] == "2"


def test_processes_share_a_key_for_engines_that_the_user_may_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNESMITH_ENGINE_KEY", "")
    service = EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000)
    keys = {child_environment(service)["TUNESMITH_ENGINE_KEY"] for _ in range(2)}
    another = child_environment(EmbeddedService(Path("/data"), "127.0.0.1", 8000, 9000))
    assert len(keys) == 1 and len(keys.pop()) > 30
    assert another["TUNESMITH_ENGINE_KEY"] != service.engine_key
    assert service.engine_key not in repr(service)
    monkeypatch.setenv("TUNESMITH_ENGINE_KEY", "chosen")
    assert child_environment(service)["TUNESMITH_ENGINE_KEY"] == "chosen"


def test_address_of_ipv6_is_written_in_brackets() -> None:
    assert EmbeddedService(Path("/data"), "::1", 8000, 9000).url == "http://[::1]:8000"
