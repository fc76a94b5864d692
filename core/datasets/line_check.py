"""Checks a JSONL file line by line, within limits: shared by files of requests and of items."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from core.datasets.check import MAX_LISTED_ERRORS, at_line
from core.datasets.lines import read_lines
from core.datasets.row_errors import RowError
from core.spec.dataset import LineError


@dataclass(frozen=True)
class CheckedLines:
    """How many rows there are, and the errors: the first ones, and the number of all."""

    rows: int
    faults: tuple[LineError, ...]
    fault_count: int


def check_lines(
    path: Path,
    errors_of: Callable[[int, Mapping[str, Any]], Iterable[RowError]],
    *,
    max_rows: int,
    noun: str,
    timeout_seconds: float = math.inf,
) -> CheckedLines:
    """Read every line once and collect the errors. Blank lines are skipped.

    `errors_of` yields the errors of a row, given the number of its line; it must take an empty row
    too. Exceeding the time or memory limit, or `max_rows`, ends the check with a final error.
    """
    deadline = monotonic() + timeout_seconds
    faults: list[LineError] = []
    fault_count = rows = number = 0
    stopped = ""
    try:
        for line in read_lines(path, skip_blank=True):
            number = line.number
            if monotonic() > deadline:
                stopped = "the check took too long and stopped here; split the file"
                break
            errors = line.errors or tuple(errors_of(line.number, line.row or {}))
            rows += line.row is not None
            if rows > max_rows:
                stopped = f"the file has more than {max_rows} {noun}; split it"
                break
            fault_count += len(errors)
            room = MAX_LISTED_ERRORS - len(faults)
            faults += [at_line(number, error) for error in errors[:room]]
    except MemoryError:
        stopped = "the check ran out of memory and stopped here; shorten the line"
    if stopped:
        fault_count += 1
        faults = [*faults[: MAX_LISTED_ERRORS - 1], at_line(number, RowError(None, stopped))]
    return CheckedLines(rows, tuple(faults), fault_count)
