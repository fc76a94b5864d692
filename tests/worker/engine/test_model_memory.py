"""How much memory the engine fills with models where nobody has said it."""

import os
from pathlib import Path

import pytest
import torch

from worker.engine import model_memory
from worker.engine.model_memory import model_memory_bytes

CPU = torch.device("cpu")


def test_most_of_the_machine_unless_its_container_is_smaller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(model_memory, "_CONTAINER_LIMITS", (limit, tmp_path / "none"))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    whole = int(machine * 0.75)
    assert model_memory_bytes(CPU) == whole
    for text, expected in [("max\n", whole), ("1000\n", 750), (str(2**63), whole)]:
        limit.write_text(text)
        assert model_memory_bytes(CPU) == expected
