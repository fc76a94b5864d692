"""The bytes of a pretend device, from the first tensor of a storage to the end of its last."""

import weakref

from torch import Tensor

BLOCK = 512
"""Bytes: PyTorch's allocator rounds every tensor up to a multiple."""


class Memory:
    """Every storage on the device, once each."""

    def __init__(self) -> None:
        self.used = 0
        """Bytes."""
        self.peak = 0
        """The most bytes since the last `reset_peak`."""
        self._alive: dict[int, weakref.ref[object]] = {}

    def reset_peak(self) -> None:
        self.peak = self.used

    def note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor on the device, unless it is known."""
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._alive:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK

        def free(_: object) -> None:
            del self._alive[place]
            self.used -= size

        self._alive[place] = weakref.ref(storage, free)
        self.used += size
        self.peak = max(self.peak, self.used)
