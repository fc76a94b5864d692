"""Tiny bases for the tests of the torch side; imports are late so that other tests stay light."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def chat_tokenizer() -> Any:
    """A byte-level BPE with a few merges, ChatML, and one token per other byte."""
    from tests.core import tiny

    return tiny.chat_tokenizer()


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Return a builder: `tiny_model("qwen3", seed=1)` is a random model of that family."""
    from tests.core import tiny

    return tiny.tiny_model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., Any]:
    """Return a builder: `tiny_tokenizer("t5")` has the special tokens of that family."""
    from tests.core import tiny

    return tiny.tiny_tokenizer


@pytest.fixture
def base_of(tmp_path: Path) -> Callable[..., Any]:
    """Return a builder: `base_of("gemma2")` saves such a base and returns its BaseModelSpec."""
    from tests.core import tiny

    def build(model_type: str, seed: int = 0, **changes: Any) -> Any:
        return tiny.save_base(tmp_path / f"base-{model_type}-{seed}", model_type, seed, **changes)

    return build


@pytest.fixture
def base_spec(tmp_path: Path, tiny_model: Callable[..., Any], chat_tokenizer: Any) -> Any:
    """A saved Llama base in a folder of its own."""
    from core.spec.base_model import BaseModelSpec

    folder = tmp_path / "base"
    tiny_model("llama").save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    return BaseModelSpec(id="tiny-test", source=str(folder))
