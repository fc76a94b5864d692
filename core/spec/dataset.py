"""The report of the check of an uploaded dataset."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec

DatasetFormat = Literal[
    "chat",
    "prompt-completion",
    "instruction",
    "preference",
    "unpaired-preference",
    "text",
    "classification",
]


class LineError(Spec):
    """One error: the line, the field, and a message with a hint how to fix it."""

    line: int = Field(description="1 for the first line of the file")
    field: str | None = Field(description="path inside the row, such as messages[0].role")
    message: str


class DuplicateRow(Spec):
    """A row that equals an earlier one."""

    line: int
    first_line: int


class DatasetReport(Spec):
    """The result of checking every line of a file. No job can train on a file with errors.

    Reports of older files lack fields that were added later; these get their defaults.
    """

    format: DatasetFormat | None = Field(description="None when no line has a known format")
    rows: int
    faults: tuple[LineError, ...] = Field(description="the first ones, up to a limit")
    fault_count: int = Field(description="all errors, listed or not")
    labels: tuple[str, ...] = Field((), description="of a classification file, sorted")
    multi_label: bool = Field(False, description="a row may have several labels, or none")
    duplicate_rows: int = Field(0, description="rows that equal an earlier one")
    duplicates: tuple[DuplicateRow, ...] = Field((), description="the first ones, up to a limit")
    has_tools: bool = Field(False, description="some row offers tools or calls one")
    characters: int = Field(0, description="characters of text in all rows and their answers")
    longest_characters: int = Field(0, description="characters of text in the longest row")
    longest_line: int | None = None
    columns: dict[str, str] = Field(
        default_factory=dict, description="the mapping that the rows were read with"
    )
    column_names: tuple[str, ...] = Field((), description="of the rows, up to a limit")
    unused_columns: tuple[str, ...] = Field(
        (), description="columns, and keys inside them, that are not used, up to a limit"
    )

    @property
    def usable(self) -> bool:
        return self.format is not None and self.rows > 0 and self.fault_count == 0
