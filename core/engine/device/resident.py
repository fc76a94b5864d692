"""What the runner asks of a model in memory, whatever its kind."""

from collections.abc import Collection, Sequence
from typing import Protocol

from core.engine.policy.step import Chunk
from core.engine.results import Results


class Resident(Protocol):
    """A model in memory that runs the steps of its lane."""

    def adapters(self) -> list[str]:
        """Name the adapters in memory; safe to call from any thread."""

    def prepare(self, adapter: str, in_use: Collection[str]) -> None:
        """Have an adapter in memory, in place of one not `in_use`; Unavailable when it is unfit."""

    def run(self, chunks: Sequence[Chunk]) -> Results:
        """Run a step whose adapters are prepared."""
