"""A step of the device, and its limits."""

import sys
from collections.abc import Container
from dataclasses import dataclass

from core.engine.policy.request import AnySequence, BaseKey


@dataclass(frozen=True)
class Limits:
    """Limits of concurrent work.

    `max_sequences`: running sequences of all bases. `max_waiting`: a request is accepted while
    fewer sequences wait, regardless of its own number of choices or texts. `max_bases`: bases with
    running sequences; `max_base_bytes`: their total memory; `max_adapters`: adapters in use on one
    base. `max_step_tokens`: tokens of a step of a base with a cache, plus an eighth if that
    finishes a prompt.
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
    """Positions [start, end) of a sequence, processed in one step."""

    sequence: AnySequence
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether this is the last unread chunk, so that the next token can be sampled."""
        return self.end == len(self.sequence.all_tokens)


@dataclass(frozen=True)
class Step:
    """The chunks that one base processes together."""

    base: BaseKey
    chunks: tuple[Chunk, ...]

    def without(self, sequences: Container[AnySequence]) -> "Step":
        """Return the step without these sequences."""
        return Step(
            self.base, tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)
        )
