"""An engine for the runs of a workshop."""

from collections.abc import Iterator

import pytest

from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.workshop import Workshop
from worker.answering import dispatch, external, fleet


@pytest.fixture
def engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEngine]:
    """An engine for the workshop; retries come soon."""
    monkeypatch.setattr(dispatch, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fleet, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(external, "FIRST_PAUSE_SECONDS", 0.01)
    engine = ScriptedEngine()
    with serve(engine.app) as engine.url:
        workshop.engine_at(engine.url)
        yield engine
