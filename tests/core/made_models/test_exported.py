"""Every kind of adapter that PEFT makes is taken in, and away again in each format that it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.made_models.exporting import require_exports
from tests.core.made_models.made_by_peft import KINDS, imported, make

pytestmark = pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")

QUICK = ("patterns", "modules_to_save", "tokens, tied", "embedding and head", "p-tuning", "ia3")
CASES = [
    pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow, id=kind) for kind in KINDS
]


@pytest.mark.parametrize("kind", CASES)
def test_an_imported_adapter_is_exported(
    kind: str, tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    chosen = KINDS[kind]
    base = base_of(chosen.family, **chosen.base_options)
    make(chosen.config(), base, tmp_path / "saved")
    found = imported(tmp_path, base, tmp_path / "saved")
    done = require_exports(found, tmp_path / "bundle", tmp_path / "out")
    assert "huggingface adapter" in done
    assert "merged merged" in done or found.tuned.strategy.type in ("prefix", "prompt")
