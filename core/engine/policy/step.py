"""A step of the device, and the bounds of what one may hold."""

import sys
from collections.abc import Container
from dataclasses import dataclass

from core.engine.policy.request import AnySequence, BaseKey


@dataclass(frozen=True)
class Limits:
    """Bounds of what is held at once.

    `max_sequences` counts running sequences of all bases together. A request is taken while fewer
    than `max_waiting` sequences wait, whatever its own number of choices or texts. `max_bases`
    bounds the bases with running sequences, `max_base_bytes` the memory of those together,
    `max_adapters` the adapters of those on one base. A step of a base with a cache has at most
    `max_step_tokens` tokens, and an eighth more where that ends a prompt.
    """

    max_sequences: int
    max_waiting: int
    max_step_tokens: int
    max_bases: int
    max_adapters: int
    max_base_bytes: int = sys.maxsize

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.max_step_tokens < self.max_sequences:
            raise ValueError("max_step_tokens must not be less than max_sequences.")


@dataclass(frozen=True)
class Chunk:
    """Places [start, end) of a sequence, which go through the model in this step."""

    sequence: AnySequence
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether all positions have been read then, so that the next token can be sampled."""
        return self.end == len(self.sequence.all_tokens)


@dataclass(frozen=True)
class Step:
    """What goes through one base at once."""

    base: BaseKey
    chunks: tuple[Chunk, ...]

    def without(self, sequences: Container[AnySequence]) -> "Step":
        """Return the step with these sequences left out."""
        return Step(
            self.base, tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)
        )
