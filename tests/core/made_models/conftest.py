"""What our own model says of the rows, which an import replaces by what PEFT says."""

from typing import Any

import pytest

from core.made_models import run


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """Our figures of the imports of a test, in their order."""
    seen: list[tuple[float, ...]] = []
    measure = run.parity_reference

    def noted(*arguments: Any) -> Any:
        reference = measure(*arguments)
        assert reference is not None
        seen.append(reference.figures)
        return reference

    monkeypatch.setattr(run, "parity_reference", noted)
    return seen
