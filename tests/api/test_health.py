"""What supervisors and load balancers ask."""

from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete

from core.records.tables import RegisteredEngine
from core.records.workers import worker_seen
from core.sandbox.availability import Availability, availability
from core.tasks.kinds import Queue
from tests.api.live import Api, register, running_api
from tests.contract.contract import CheckedClient


def test_ready_when_every_part_answers(api: Api, client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "no worker" in answer.json()["parts"]["worker"]
    with api.database.writing() as session:
        worker_seen(session, "worker-test", "cpu", Queue.DEVICE)
        worker_seen(session, "worker-light", "cpu", Queue.LIGHT)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert set(answer.json()["parts"].values()) == {"ok"}
    assert answer.json()["sandbox"] == asdict(availability())


def test_machine_without_a_sandbox_is_ready_and_says_what_to_do(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Availability(None, "To run Python graders: install bubblewrap.")
    monkeypatch.setattr("api.health.service.availability", lambda: refused)
    with api.database.writing() as session:
        worker_seen(session, "worker-test", "cpu", Queue.DEVICE)
        worker_seen(session, "worker-light", "cpu", Queue.LIGHT)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["sandbox"] == {"kind": None, "reason": refused.reason}


def test_health_is_that_of_vllm(api: Api, client: httpx.Client) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    with api.database.writing() as session:
        session.execute(delete(RegisteredEngine))
    answer = httpx.get(f"{api.url}/health", trust_env=False)
    assert (answer.status_code, answer.content) == (503, b"")


def test_missing_parts_are_named(tmp_path: Path, sqlite_url: str) -> None:
    with running_api(tmp_path, sqlite_url) as api, CheckedClient(base_url=api.url) as client:
        register(api, "http://127.0.0.1:9", status="draining")
        assert "no engine that takes requests" in client.get("/readyz").json()["parts"]["engine"]
        with api.database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE workers")
        (tmp_path / "broker" / "messages").rmdir()
        (tmp_path / "storage" / ".incoming").rmdir()
        answer = client.get("/readyz")
        assert answer.status_code == 503
        parts = answer.json()["parts"]
        assert parts["database"] == "OperationalError"
        assert "missing" in parts["storage"]
        assert client.get("/healthz").status_code == 200
        with api.database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE engines")
        assert httpx.get(f"{api.url}/health", trust_env=False).status_code == 503
