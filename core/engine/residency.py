"""Which loaded things stay in memory: the most recently used, and always those in use."""

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
    """At most `capacity` loaded values by key; the least recently used one makes room.

    What is in use is named by the caller at each `acquire` and never unloaded. The
    scheduler admits no more models at once than fit, so there is always one to give up.
    """

    def __init__(
        self,
        capacity: int,
        load: Callable[[Key], Value],
        unloaded: Callable[[Key], None] = lambda key: None,
        tally: Tally | None = None,
    ) -> None:
        self.capacity = capacity
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

    def acquire(self, key: Key, in_use: Collection[Key]) -> Value:
        """Return the value, loading it after making room. Errors of loading pass through."""
        if key in self._loaded:
            value = self._loaded.pop(key)
        else:
            self._make_room(in_use)
            value = self._load(key)
            self._tally.loads += 1
        self._loaded[key] = value
        return value

    def _make_room(self, in_use: Collection[Key]) -> None:
        while len(self._loaded) >= self.capacity:
            try:
                oldest = next(key for key in self._loaded if key not in in_use)
            except StopIteration:
                raise RuntimeError(
                    f"All {self.capacity} resident values are in use; admission must prevent this."
                ) from None
            del self._loaded[oldest]
            self._tally.evictions += 1
            self._unloaded(oldest)
