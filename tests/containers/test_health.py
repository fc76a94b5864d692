"""The health check of containers that answer no HTTP."""

from pathlib import Path

import pytest

from core.errors import Unavailable
from worker.health import main


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str) -> None:
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("TUNESMITH_BROKER_URL", f"folder://{tmp_path / 'broker'}")
    monkeypatch.setenv("TUNESMITH_STORAGE_FOLDER", str(tmp_path / "storage"))


@pytest.mark.usefixtures("environment")
def test_worker_that_reaches_its_parts_is_healthy() -> None:
    main()


@pytest.mark.usefixtures("environment")
def test_worker_without_broker_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_BROKER_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        main()


@pytest.mark.usefixtures("environment")
def test_worker_without_database_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", f"sqlite:///{tmp_path / 'missing' / 'x.sqlite3'}")
    with pytest.raises(Exception, match="unable to open database file"):
        main()
