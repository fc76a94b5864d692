"""The number of threads of a run."""

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaConfig, T5Config

from core.training.threads import limit_threads


@pytest.fixture(autouse=True)
def eight_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("config", "tokens", "threads"),
    [
        (LlamaConfig(hidden_size=64), 10, 1),  # at least one
        (LlamaConfig(hidden_size=256), 550, 1),
        (LlamaConfig(hidden_size=384), 720, 4),
        (LlamaConfig(hidden_size=2048), 720, 8),  # no more than there are
        (T5Config(d_model=384), 720, 4),
    ],
)
def test_long_operations_have_more(config, tokens, threads):
    limit_threads(config, tokens)
    assert torch.get_num_threads() == threads
