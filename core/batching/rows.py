"""One example as the model sees it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Token ids of one example, which of them carry a loss, and its line in the file.

    The first token is never trained, since nothing precedes it that could predict it.
    """

    line: int
    tokens: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def labelled_tokens(self) -> int:
        return sum(self.trained)


class InvalidRow(Exception):
    """A row of a dataset that cannot be trained on: which line, and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message
