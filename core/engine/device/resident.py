"""The interface between the runner and every kind of resident model."""

from collections.abc import Collection, Sequence
from typing import Protocol

from core.engine.policy.step import Chunk
from core.engine.results import Results


class Resident(Protocol):
    """A resident model that runs the steps of its lane."""

    def adapters(self) -> list[str]:
        """Return the resident adapters; thread-safe."""

    def prepare(self, adapter: str, in_use: Collection[str]) -> None:
        """Load an adapter, evicting one that is not `in_use`; Unavailable if it does not fit."""

    def run(self, chunks: Sequence[Chunk]) -> Results:
        """Run a step whose adapters are prepared."""
