"""A scripted engine for a workshop, with short pauses between requests that are repeated."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.workshop import Workshop
from worker.answering import dispatch, fleet


@contextmanager
def quick_engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEngine]:
    monkeypatch.setattr(dispatch, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_SECONDS", 0.05)
    engine = ScriptedEngine()
    with serve(engine.app) as engine.url:
        workshop.engine_at(engine.url)
        yield engine
