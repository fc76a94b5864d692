"""The benchmark of embeddings compares sides that compute the same."""

import time
from pathlib import Path

import torch

from bench.embeddings import measure, ours, plain, texts_of
from tests.core.tiny import save_base


def test_every_side_makes_the_same_vectors(tmp_path: Path) -> None:
    base = Path(save_base(tmp_path / "bert", "bert").source)
    texts = texts_of(base, 70)
    assert len(set(map(len, texts))) > 30
    sides = (ours(base, tmp_path), plain(base, by_length=False), plain(base, by_length=True))
    found = [measure(embed, texts, time.perf_counter) for embed in sides]
    assert all(rate > 0 for rate, _ in found)
    for _, vectors in found[1:]:
        torch.testing.assert_close(vectors, found[0][1], atol=1e-5, rtol=0)
