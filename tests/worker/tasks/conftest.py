"""A hub on this machine, and a light worker that downloads from it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from core.records.base_downloads import BASE_DOWNLOAD
from core.tasks.kinds import KINDS
from tests.hub import SMALL_BASE, FakeHub, running_hub
from tests.worker.workshop import Workshop
from worker.context import Worker


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one base, which the processes of the test use, and an empty cache."""
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running_hub() as hub:
        hub.repositories["acme/small"] = SMALL_BASE
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def worker(hub: FakeHub, workshop: Workshop) -> Iterator[Worker]:
    """A light worker whose retries come at once."""
    kind = replace(KINDS[BASE_DOWNLOAD], retry_seconds=0.01, max_attempts=2)
    settings = workshop.settings()
    with patch.dict(KINDS, {BASE_DOWNLOAD: kind}):
        yield Worker(settings, workshop.database, workshop.store, threading.Event())
