"""Our engine for the serving benchmarks, in this process and stepped manually."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.engine.text.answers import Item
from core.engine.text.token_bytes import TokenBytes
from core.errors import TunesmithError
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec


def make_engine(adapters: Sequence[Path], *, at_once: int, waiting: int, resident: int) -> Engine:
    """Return an engine in fp32 with these adapters, named by `adapter_name` of their index.

    `resident` of them are in memory at a time, `at_once` sequences run and `waiting` may wait.
    """
    folders = {adapter_name(number): folder for number, folder in enumerate(adapters)}
    loader = BaseLoader(
        torch.device("cpu"),
        folders.__getitem__,
        cache_bytes=512 * 2**20,
        max_adapters=resident,
    )
    limits = Limits(
        max_sequences=at_once,
        max_waiting=waiting,
        max_step_tokens=512,
        max_bases=1,
        max_adapters=resident,
    )
    scheduler, runner = Scheduler(limits, loader.pool), Runner(loader.load, 1)
    return Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters))


def adapter_name(number: int) -> str:
    """Return a substitute for the hash of an archive, equally unordered."""
    return sha256(str(number).encode()).hexdigest()


def require_answer(item: Item) -> None:
    """End the benchmark if the engine rejects a request, because errors are fast."""
    if isinstance(item, TunesmithError):
        raise SystemExit(f"The engine rejected a request: {item.message}")


@cache
def token_bytes_of(base_folder: str) -> TokenBytes:
    """Return the bytes of the base's tokens, read once as in the service."""
    return TokenBytes(load_tokenizer(BaseModelSpec(id="base", source=base_folder)))
