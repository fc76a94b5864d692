"""Which loaded things stay in memory: the most recently used, and always those in use."""

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass
class Tally:
    """How often something was loaded, and how often something had to make room."""

    loads: int = 0
    evictions: int = 0


class Residency(Generic[Key, Value]):
    """At most `capacity` loaded values by key, of at most `max_bytes` together.

    The least recently used one makes room. What is in use is named by the caller at each
    `acquire` and never unloaded. The scheduler admits no more at once than fits, by the same
    numbers, so there is always one to give up. `bytes_of` says the same for a key each time.
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
        """Keys of what is loaded, least recently used first; safe to call from any thread."""
        return list(self._loaded)

    def values(self) -> list[Value]:
        """What is loaded, in the order of `keys`; safe to call from any thread."""
        return list(self._loaded.values())

    @property
    def bytes(self) -> int:
        """Of all that is loaded; safe to call from any thread."""
        return sum(map(self._bytes_of, self.keys()))

    def acquire(self, key: Key, in_use: Collection[Key]) -> Value:
        """Return the value, loading it after making room. Errors of loading pass through."""
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
