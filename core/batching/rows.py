"""One example as the model sees it, in the form of its objective."""

from dataclasses import dataclass
from typing import Protocol


class TrainingRow(Protocol):
    """What order, packing and normalisation need to know of a row of any kind."""

    @property
    def line(self) -> int:
        """Its line in the file, 1 for the first."""

    @property
    def length(self) -> int:
        """Tokens that go through the model."""

    @property
    def targets(self) -> int:
        """What its loss is a sum over: labelled tokens, or 1 where the row is judged whole."""


@dataclass(frozen=True)
class Row:
    """Token ids and which of them carry a loss.

    The first token is never trained, since nothing precedes it that could predict it.
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
    """A text to classify; `labels` are indices into the labels of the objective."""

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
    """Two answers to one prompt, of which the first is the better one."""

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
    """A text for the encoder, and the text that the decoder has to write for it."""

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
    """Return the sequences of tokens that a row makes the model read or write."""
    match row:
        case Row() | LabelledRow():
            return (row.tokens,)
        case PairRow():
            return row.chosen.tokens, row.rejected.tokens
        case SourceTargetRow():
            return row.source, row.target
        case _:
            raise TypeError(f"{type(row).__name__} is no row of an objective")


class InvalidRow(Exception):
    """A row of a dataset that cannot be trained on: which line, and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message
