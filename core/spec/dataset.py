"""What is known about an uploaded dataset before any model has seen it."""

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


class LineFault(Spec):
    """One faulty line: where it is, what is wrong and how to mend it."""

    line: int = Field(description="1 for the first line of the file")
    field: str | None = Field(description="path inside the row, such as messages[0].role")
    message: str


class DuplicateRow(Spec):
    """A row that says the same as an earlier one."""

    line: int
    first_line: int


class DatasetReport(Spec):
    """The result of reading every line of a file once. A file with faults trains no job.

    Reports of older files lack what was added since; they are read with the defaults.
    """

    format: DatasetFormat | None = Field(description="None when no line could be recognised")
    rows: int
    faults: tuple[LineFault, ...] = Field(description="the first ones, up to a bound")
    fault_count: int = Field(description="all of them, listed or not")
    labels: tuple[str, ...] = Field((), description="of a classification file, sorted")
    multi_label: bool = Field(False, description="a row may have several labels, or none")
    duplicate_rows: int = Field(0, description="rows that say the same as an earlier one")
    duplicates: tuple[DuplicateRow, ...] = Field((), description="the first ones, up to a bound")
    has_tools: bool = Field(False, description="some row offers tools or calls one")
    longest_characters: int = Field(0, description="text of the longest row")
    longest_line: int | None = None
    columns: dict[str, str] = Field(
        default_factory=dict, description="the mapping that the rows were read with"
    )
    column_names: tuple[str, ...] = Field((), description="of the rows, up to a bound")
    unused_columns: tuple[str, ...] = Field(
        (), description="columns, and keys inside of them, that nothing is read from, up to a bound"
    )

    @property
    def usable(self) -> bool:
        return self.format is not None and self.rows > 0 and self.fault_count == 0
