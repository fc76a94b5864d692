"""Runs steps on the device: models in memory, their caches, and the adapters on them."""

import gc
import sys
import threading
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.engine.device.causal_model import CausalModel
from core.engine.device.classifier_model import ClassifierModel
from core.engine.device.footprint import Footprint, footprint
from core.engine.device.merged import load_merged
from core.engine.device.resident import Resident
from core.engine.device.seq2seq_model import Seq2SeqModel
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
"""Places of a block of the cache. A CPU reads keys faster in longer rows, though 64 bring little
more than 32; a shared beginning is known by whole blocks, so they should be short."""

MAX_CACHED_FOOTPRINTS = 1024


class BaseLoader:
    """Loads bases as the engine runs them, each writing one with a cache of `cache_bytes`."""

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
        """Held while a model or its outline is built, which changes torch's default dtype."""
        self.adapters = Tally()

    def load(self, base: BaseKey) -> Resident:
        """Load a base; the errors of `load_base` and `load_merged`."""
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
                return ClassifierModel(model, *adapters)
            case "seq2seq":
                return Seq2SeqModel(model, *adapters)

    def _load_weights(self, base: BaseKey) -> PreTrainedModel:
        if base.merged_sha256 is None:
            return load_base(base.spec, dtype_of(base.precision), self._device, task=base.task)
        return load_merged(base, self._adapter_folder(base.merged_sha256), self._device)

    def cache_blocks(self, base: BaseKey) -> int:
        """Return how many blocks the cache of a writing base has; no weights are read."""
        return max(1, self._cache_bytes // _bytes_per_block(base))

    def require_room(self, base: BaseKey) -> None:
        """Raise InvalidRequest `model_too_large` for a base that can never be loaded here."""
        needed = self._footprint(base)
        if needed.total > self._max_base_bytes:
            raise _too_large(base, needed, self._max_base_bytes)

    def bytes_of(self, base: BaseKey) -> int:
        """Return what a base takes of the memory at most; no weights are read."""
        return self._footprint(base).total

    def _measure(self, base: BaseKey) -> Footprint:
        cache_bytes = 0
        if base.task == "generation":
            cache_bytes = self.cache_blocks(base) * _bytes_per_block(base)
        with self.building:
            return footprint(base, self._device, cache_bytes)

    def cache_tokens(self, base: BaseKey) -> int | None:
        """Return how many tokens the cache of a base holds; None for one that has none."""
        return self.cache_blocks(base) * BLOCK_TOKENS if base.task == "generation" else None

    def pool(self, base: BaseKey) -> BlockPool | None:
        """Return the blocks of a writing base for the scheduler; None for all others."""
        if base.task != "generation":
            return None
        return BlockPool(self.cache_blocks(base), BLOCK_TOKENS)


def _bytes_per_block(base: BaseKey) -> int:
    config = load_config(base.spec).get_text_config()
    return BLOCK_TOKENS * bytes_per_token(config, dtype_of(base.precision))


class Runner:
    """Owns the resident models. All methods belong to one thread, except those that only tell."""

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
        """What the resident bases take of the memory that they may fill."""
        return self._bases.bytes

    def resident_adapters(self) -> list[str]:
        return [name for base in self._bases.values() for name in base.adapters()]

    def load(self, base: BaseKey) -> None:
        """Have a base in memory before anybody asks for it; the errors of loading."""
        self._bases.acquire(base, ())

    def prepare(
        self, step: Step, bases_in_use: Collection[BaseKey]
    ) -> dict[AnySequence, TunesmithError]:
        """Have everything in memory that a step needs; return the sequences that cannot run.

        Raises the errors of loading when it is the base that cannot be loaded.
        """
        resident = self._bases.acquire(step.base, bases_in_use)
        # in the order of the rows of a step, so that those who come together stand together
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
        """Run a step that is prepared."""
        return self._bases.acquire(step.base, {step.base}).run(step.chunks)

    def take_unloaded(self) -> list[BaseKey]:
        """Return the bases that were unloaded since the last call, with all that was cached."""
        gone, self._gone = self._gone, []
        return gone

    def _unloaded(self, base: BaseKey) -> None:
        """Free models that only reference cycles hold, and give their memory to the device."""
        self._gone.append(base)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _too_large(base: BaseKey, needed: Footprint, max_bytes: int) -> InvalidRequest:
    parts = {
        "weights": needed.weights,
        "copies laid out for speed": needed.copies,
        "cache": needed.cache,
        "plain weights to make it from": needed.loading,
    }
    said = ", ".join(f"{name} {_mib(size)}" for name, size in parts.items() if size)
    return InvalidRequest(
        f"The model {base.spec.id} takes {_mib(needed.total)} of memory here ({said}), and the "
        f"engine may fill {_mib(max_bytes)}. Take a smaller or a quantised one, or raise "
        "TUNESMITH_ENGINE_MODEL_MEMORY_MIB.",
        param="model",
        code="model_too_large",
    )


def _mib(size: int) -> str:
    return f"{-(-size // 2**20):,} MiB"
