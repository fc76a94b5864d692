"""Embeddings a second: our engine, and plain transformers in padded batches.

    python -m bench.embeddings            # `make real-bases` first
    python -m bench.embeddings --busy     # one thread, CPU time: for a shared machine

Both sides read the same texts, the docstrings of `examples/python_docs`, tokenize them and return
normalized means. The peer takes batches of 32 in the order of the texts, or sorted by
length, which is the better way if all texts are known. The vectors are compared, too.
"""

import argparse
import json
import statistics
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from bench.measure import Clock, median_ratio
from core.engine.text.texts import TextsAnswer, TextsRead, embedding_answer
from core.inference.embeddings import TEXTS_PER_REQUEST
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import EmbeddingRequest
from worker.engine.serve import build_engine
from worker.engine.settings import EngineSettings

BASE = Path("build/real-bases/minilm")
TEXTS = Path("examples/python_docs/train.jsonl")
PEER_BATCH = 32
MAX_TOKENS = 256
"""The limit of the base; longer texts are cut before the measurement."""

Embed = Callable[[list[str]], Tensor]


def ours(base: Path, folder: Path) -> Embed:
    """Return our engine with the default settings of a server, stepped in this thread."""
    settings = EngineSettings(storage_folder=folder, cache_folder=folder, precision="fp32")
    engine, reader = build_engine(settings)
    spec = BaseModelSpec(id="base", source=str(base.absolute()))

    def embed(texts: list[str]) -> Tensor:
        vectors: list[str] = []
        for start in range(0, len(texts), TEXTS_PER_REQUEST):
            part = tuple(texts[start : start + TEXTS_PER_REQUEST])
            ready = reader.read_embedding(EmbeddingRequest(id="r", base=spec, texts=part))
            items: list[TextsRead] = []
            engine.submit(ready, TextsAnswer(ready), items.append)  # type: ignore[arg-type]
            while engine.step():
                pass
            vectors += embedding_answer(ready, items[0].results).vectors
        return torch.from_numpy(np.stack([np.frombuffer(b64decode(v), "<f4") for v in vectors]))

    return embed


def plain(base: Path, *, by_length: bool) -> Embed:
    """Return plain transformers with padded batches."""
    model, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)

    @torch.inference_mode()
    def embed(texts: list[str]) -> Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i])) if by_length else None
        vectors = []
        ordered = [texts[i] for i in order] if order else texts
        for start in range(0, len(ordered), PEER_BATCH):
            batch = tokenizer(
                ordered[start : start + PEER_BATCH], padding=True, return_tensors="pt"
            )
            states_BSE = model(**batch).last_hidden_state
            mask_BS1 = batch["attention_mask"][..., None]
            means_BE = (states_BSE * mask_BS1).sum(dim=1) / mask_BS1.sum(dim=1)
            vectors.append(normalize(means_BE, dim=-1))
        found = torch.cat(vectors)
        return found[torch.tensor(order).argsort()] if order else found

    return embed


def texts_of(base: Path, count: int) -> list[str]:
    """Return texts of the dataset, cut to the limit of the base."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = (json.loads(line) for line in TEXTS.read_text(encoding="utf-8").splitlines())
    messages = [message for row in rows for message in row["messages"]]
    texts = [message["content"] for message in messages if message["role"] == "user"]
    cut = tokenizer(texts[:count], truncation=True, max_length=MAX_TOKENS - 8)["input_ids"]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in cut]


def measure(embed: Embed, texts: list[str], clock: Clock) -> tuple[float, Tensor]:
    """Return the texts per second, and their vectors."""
    started = clock()
    vectors = embed(texts)
    return len(texts) / (clock() - started), vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="one thread, CPU time")
    asked = parser.parse_args()
    if asked.busy:
        torch.set_num_threads(1)
    clock: Clock = time.process_time if asked.busy else time.perf_counter
    texts = texts_of(asked.base, asked.texts)
    sides = {
        "ours": ours(asked.base, Path("build/bench-embeddings")),
        "batches of 32": plain(asked.base, by_length=False),
        "batches of 32 by length": plain(asked.base, by_length=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    found = {name: embed(texts[:64]) for name, embed in sides.items()}  # loads and warms up
    for _ in range(asked.rounds):
        for name, embed in sides.items():
            rate, found[name] = measure(embed, texts, clock)
            rates[name].append(rate)
    for name in sides:
        apart = (found[name] - found["ours"]).abs().max().item()
        print(
            f"{name:24} {statistics.median(rates[name]):8.1f} texts/s, "
            f"ours is {median_ratio(rates['ours'], rates[name]):.2f} times as fast, "
            f"vectors differ by {apart:.1e} at most"
        )


if __name__ == "__main__":
    main()
