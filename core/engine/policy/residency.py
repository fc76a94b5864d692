"""An LRU cache of loaded values that never evicts a value in use."""

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass
class Tally:
    """The number of loads and of evictions."""

    loads: int = 0
    evictions: int = 0


class Residency(Generic[Key, Value]):
    """At most `capacity` loaded values by key, with at most `max_bytes` in total.

    The least recently used value is evicted first. The caller names the keys in use at each
    `acquire`; they are never evicted. The scheduler admits only what fits by the same limits, so
    an eviction is always possible. `bytes_of` must return the same for a key each time.
    """

    def __init__(
        self,
        capacity: int,
        load: Callable[[Key], Value],
        unloaded: Callable[[Key], None] = lambda key: None,
        tally: Tally | None = None,
        *,
        max_bytes: int = sys.maxsize,
        bytes_of: Callable[[Key], int] = lambda key: 0,
    ) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self._bytes_of = bytes_of
        self._load = load
        self._unloaded = unloaded
        self._loaded: dict[Key, Value] = {}
        self._tally = tally or Tally()

    def keys(self) -> list[Key]:
        """The keys of the loaded values, least recently used first; thread-safe."""
        return list(self._loaded)

    def values(self) -> list[Value]:
        """The loaded values in the order of `keys`; thread-safe."""
        return list(self._loaded.values())

    @property
    def bytes(self) -> int:
        """The size of all loaded values; thread-safe."""
        return sum(map(self._bytes_of, self.keys()))

    def acquire(self, key: Key, in_use: Collection[Key]) -> Value:
        """Return the value; evict others and load it first if needed. Passes load errors on."""
        if key in self._loaded:
            value = self._loaded.pop(key)
        else:
            self._make_room(self._bytes_of(key), in_use)
            value = self._load(key)
            self._tally.loads += 1
        self._loaded[key] = value
        return value

    def _make_room(self, needed_bytes: int, in_use: Collection[Key]) -> None:
        while len(self._loaded) >= self.capacity or self.bytes + needed_bytes > self.max_bytes:
            try:
                oldest = next(key for key in self._loaded if key not in in_use)
            except StopIteration:
                raise RuntimeError(
                    f"{len(self._loaded)} resident values ({self.bytes} bytes) are in use, and "
                    f"{needed_bytes} bytes more do not fit into {self.capacity} slots and "
                    f"{self.max_bytes} bytes; admission must prevent this."
                ) from None
            del self._loaded[oldest]
            self._tally.evictions += 1
            self._unloaded(oldest)
