"""What is known about an uploaded dataset before any model has seen it."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.run import DatasetFormat


class LineFault(Spec):
    """One faulty line: where it is, what is wrong and how to mend it."""

    line: int = Field(description="1 for the first line of the file")
    field: str | None = Field(description="path inside the row, such as messages[0].role")
    message: str


class DatasetReport(Spec):
    """The result of reading every line of a file once. A file with faults trains no job."""

    format: DatasetFormat | None = Field(description="None when no line could be recognised")
    rows: int
    faults: tuple[LineFault, ...] = Field(description="the first ones, up to a bound")
    fault_count: int = Field(description="all of them, listed or not")

    @property
    def usable(self) -> bool:
        return self.format is not None and self.rows > 0 and self.fault_count == 0
