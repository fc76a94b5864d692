"""Runs steps on the device: resident models, their caches and adapters."""

import gc
import sys
import threading
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.engine.device.causal_model import CausalModel
from core.engine.device.footprint import Footprint, footprint
from core.engine.device.merged import load_merged
from core.engine.device.resident import Resident
from core.engine.device.seq2seq_model import Seq2SeqModel
from core.engine.device.text_model import TextModel
from core.engine.policy.blocks import BlockPool
from core.engine.policy.request import AnySequence, BaseKey
from core.engine.policy.residency import Residency, Tally
from core.engine.policy.step import Step
from core.engine.results import Results
from core.errors import InvalidRequest, TunesmithError
from core.models.block_cache import BlockCache, bytes_per_token
from core.models.load import load_base, load_config
from core.models.precision import dtype_of

BLOCK_TOKENS = 32
"""Positions per cache block. A CPU reads keys faster in longer rows, but 64 gains little over 32;
prefixes are cached in full blocks, so short blocks cache more."""

MAX_CACHED_FOOTPRINTS = 1024


class BaseLoader:
    """Loads bases; each generating base gets a cache of `cache_bytes`."""

    def __init__(
        self,
        device: torch.device,
        adapter_folder: Callable[[str], Path],
        *,
        cache_bytes: int,
        max_adapters: int,
        max_base_bytes: int = sys.maxsize,
    ) -> None:
        self._device = device
        self._adapter_folder = adapter_folder
        self._cache_bytes = cache_bytes
        self._max_adapters = max_adapters
        self._max_base_bytes = max_base_bytes
        self._footprint = lru_cache(MAX_CACHED_FOOTPRINTS)(self._measure)
        self.building = threading.Lock()
        """Held while a model is built, which changes torch's default dtype."""
        self.adapters = Tally()

    def load(self, base: BaseKey) -> Resident:
        """Load a base; raises the errors of `load_base` and `load_merged`."""
        with self.building:
            model = self._load_weights(base)
        adapters = self._adapter_folder, self._max_adapters, self.adapters
        match base.task:
            case "generation":
                blocks = self.cache_blocks(base)
                dtype = dtype_of(base.precision)
                cache = BlockCache(model.config, blocks, BLOCK_TOKENS, dtype, self._device)
                return CausalModel(model, cache, *adapters)
            case "classification":
                return TextModel(model, *adapters)
            case "seq2seq":
                return Seq2SeqModel(model, *adapters)

    def _load_weights(self, base: BaseKey) -> PreTrainedModel:
        if base.merged_sha256 is None:
            return load_base(base.spec, dtype_of(base.precision), self._device, task=base.task)
        return load_merged(base, self._adapter_folder(base.merged_sha256), self._device)

    def cache_blocks(self, base: BaseKey) -> int:
        """Return the number of cache blocks of a generating base, without reading weights."""
        return max(1, self._cache_bytes // _bytes_per_block(base))

    def require_room(self, base: BaseKey) -> None:
        """Raise InvalidRequest `model_too_large` for a base that can never be loaded."""
        needed = self._footprint(base)
        if needed.total > self._max_base_bytes:
            raise _too_large(base, needed, self._max_base_bytes)

    def bytes_of(self, base: BaseKey) -> int:
        """Return the peak memory of a base, without reading weights."""
        return self._footprint(base).total

    def _measure(self, base: BaseKey) -> Footprint:
        cache_bytes = 0
        if base.task == "generation":
            cache_bytes = self.cache_blocks(base) * _bytes_per_block(base)
        with self.building:
            return footprint(base, self._device, cache_bytes)

    def cache_tokens(self, base: BaseKey) -> int | None:
        """Return the tokens that fit into the cache of a base; None for a base without a cache."""
        return self.cache_blocks(base) * BLOCK_TOKENS if base.task == "generation" else None

    def pool(self, base: BaseKey) -> BlockPool | None:
        """Return the block pool of a generating base for the scheduler; None for other bases."""
        if base.task != "generation":
            return None
        return BlockPool(self.cache_blocks(base), BLOCK_TOKENS)


def _bytes_per_block(base: BaseKey) -> int:
    config = load_config(base.spec).get_text_config()
    return BLOCK_TOKENS * bytes_per_token(config, dtype_of(base.precision))


class Runner:
    """Owns the resident models. One thread calls it; the `resident_*` methods are thread-safe."""

    def __init__(
        self,
        load: Callable[[BaseKey], Resident],
        max_bases: int,
        max_base_bytes: int = sys.maxsize,
        bytes_of: Callable[[BaseKey], int] = lambda base: 0,
    ) -> None:
        self._bases: Residency[BaseKey, Resident] = Residency(
            max_bases, load, self._unloaded, max_bytes=max_base_bytes, bytes_of=bytes_of
        )
        self._gone: list[BaseKey] = []

    def resident_bases(self) -> list[BaseKey]:
        return self._bases.keys()

    def resident_bytes(self) -> int:
        """The memory of the resident bases."""
        return self._bases.bytes

    def resident_adapters(self) -> list[str]:
        return [name for base in self._bases.values() for name in base.adapters()]

    def load(self, base: BaseKey) -> None:
        """Load a base before its first request; raises load errors."""
        self._bases.acquire(base, ())

    def prepare(
        self, step: Step, bases_in_use: Collection[BaseKey]
    ) -> dict[AnySequence, TunesmithError]:
        """Load the base and adapters of a step; return the error of each sequence that failed.

        Raises load errors if the base fails to load.
        """
        resident = self._bases.acquire(step.base, bases_in_use)
        # in the row order of a step, so that adapters of the same batch get adjacent slots
        asked = {chunk.sequence.request.model.adapter_sha256 for chunk in step.chunks}
        names = sorted(name for name in asked if name is not None)
        failures: dict[str, TunesmithError] = {}
        for name in names:
            try:
                resident.prepare(name, names)
            except TunesmithError as error:
                failures[name] = error
        return {
            chunk.sequence: failures[name]
            for chunk in step.chunks
            if (name := chunk.sequence.request.model.adapter_sha256) in failures
        }

    def run(self, step: Step) -> Results:
        """Run a prepared step."""
        return self._bases.acquire(step.base, {step.base}).run(step.chunks)

    def take_unloaded(self) -> list[BaseKey]:
        """Return the bases evicted since the last call, whose caches are lost."""
        gone, self._gone = self._gone, []
        return gone

    def _unloaded(self, base: BaseKey) -> None:
        """Free models kept only by reference cycles, and return their memory to the device."""
        self._gone.append(base)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _too_large(base: BaseKey, needed: Footprint, max_bytes: int) -> InvalidRequest:
    parts = {
        "weights": needed.weights,
        "prepacked copies": needed.copies,
        "cache": needed.cache,
        "dense weights during loading": needed.loading,
    }
    said = ", ".join(f"{name} {_mib(size)}" for name, size in parts.items() if size)
    return InvalidRequest(
        f"The model {base.spec.id} needs {_mib(needed.total)} of memory ({said}); the engine may "
        f"use {_mib(max_bytes)}. Use a smaller or a quantized model, or raise "
        "TUNESMITH_ENGINE_MODEL_MEMORY_MIB.",
        param="model",
        code="model_too_large",
    )


def _mib(size: int) -> str:
    return f"{-(-size // 2**20):,} MiB"
