"""Training rows: examples as token ids, in the format of their objective."""

from dataclasses import dataclass
from typing import Protocol


class TrainingRow(Protocol):
    """The properties of any row that ordering, packing and normalization use."""

    @property
    def line(self) -> int:
        """The line in the file, from 1."""

    @property
    def length(self) -> int:
        """The number of tokens that the model processes."""

    @property
    def targets(self) -> int:
        """The number of terms in the loss sum: labelled tokens, or 1 for a loss per row."""


@dataclass(frozen=True)
class Row:
    """Token ids, and which of them have a loss.

    The first token never has a loss, because no token precedes it to predict it.
    """

    line: int
    tokens: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def targets(self) -> int:
        return sum(self.trained)


@dataclass(frozen=True)
class RatedRow(Row):
    """An answer to a prompt that is judged whole, as a good one or a bad one."""

    is_good: bool

    @property
    def targets(self) -> int:
        return 1


@dataclass(frozen=True)
class LabelledRow:
    """A text to classify; `labels` are indices into the objective's labels."""

    line: int
    tokens: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def targets(self) -> int:
        return 1


@dataclass(frozen=True)
class PairRow:
    """Two answers to one prompt; `chosen` is the better one."""

    line: int
    chosen: Row
    rejected: Row

    @property
    def length(self) -> int:
        return self.chosen.length + self.rejected.length

    @property
    def targets(self) -> int:
        return 1


@dataclass(frozen=True)
class SourceTargetRow:
    """A source text for the encoder and a target text for the decoder."""

    line: int
    source: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.source) + len(self.target)

    @property
    def targets(self) -> int:
        return len(self.target)


def token_sequences(row: TrainingRow) -> tuple[tuple[int, ...], ...]:
    """Return the token sequences of a row."""
    match row:
        case Row() | LabelledRow():
            return (row.tokens,)
        case PairRow():
            return row.chosen.tokens, row.rejected.tokens
        case SourceTargetRow():
            return row.source, row.target
        case _:
            raise TypeError(f"{type(row).__name__} is not a training row")


class InvalidRow(Exception):
    """A dataset row that cannot be trained on, with its line and the reason."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message
