"""Fair admission: the next item comes from the least served flow.

A flow is the requests of one project to one model, and must not starve other flows. Service is
the number of tokens processed for a flow, prompt and output together. A new or returning flow
starts at the smallest count of the present flows, so idle flows earn no credit.

Source: Sheng et al. 2024, https://arxiv.org/abs/2401.00588 (virtual token counters).
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First in, first out within a flow; least served first between flows."""

    def __init__(self, flow_of: Callable[[Item], Hashable]) -> None:
        self._flow_of = flow_of
        self._waiting: dict[Hashable, deque[Item]] = {}
        self._served: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Item]:
        for items in self._waiting.values():
            yield from items

    def append(self, item: Item) -> None:
        """Add an item at the end of its flow."""
        self._items(item).append(item)

    def put_back(self, item: Item) -> None:
        """Return a taken item to the front of its flow."""
        self._items(item).appendleft(item)

    def candidates(self) -> list[Item]:
        """Return the first item of every flow, the least served flow first."""
        flows = sorted(self._waiting, key=lambda flow: self._served[flow])
        return [self._waiting[flow][0] for flow in flows]

    def take(self, item: Item) -> None:
        """Remove an item from the queue."""
        flow = self._flow_of(item)
        self._waiting[flow].remove(item)
        if not self._waiting[flow]:
            del self._waiting[flow]

    def charge(self, item: Item, tokens: int) -> None:
        """Add to the service of an item's flow."""
        flow = self._flow_of(item)
        self._served[flow] = self._served.get(flow, 0) + tokens

    def forget_idle(self, active: set[Hashable]) -> None:
        """Drop the counts of flows that are neither waiting nor `active`."""
        kept = self._waiting.keys() | active
        self._served = {flow: served for flow, served in self._served.items() if flow in kept}

    def _items(self, item: Item) -> deque[Item]:
        flow = self._flow_of(item)
        if flow not in self._waiting:
            if flow not in self._served:
                self._served[flow] = min(self._served.values(), default=0)
            self._waiting[flow] = deque()
        return self._waiting[flow]
