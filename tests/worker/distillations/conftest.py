"""An engine for the distillations of a workshop."""

from collections.abc import Iterator

import pytest

from tests.api.scripted_engine import ScriptedEngine
from tests.worker.quick_engine import quick_engine
from tests.worker.workshop import Workshop
from worker.answering import external


@pytest.fixture
def engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEngine]:
    """An engine for the workshop; retries come soon."""
    monkeypatch.setattr(external, "FIRST_PAUSE_SECONDS", 0.01)
    with quick_engine(workshop, monkeypatch) as engine:
        yield engine
