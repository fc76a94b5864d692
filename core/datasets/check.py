"""Checks a dataset file in one pass; `python -m core.datasets.check` is the child process.

The child limits its own memory, wall time and CPU time; `bounded.py` starts it.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from time import monotonic

from core.datasets.columns import missing_columns
from core.datasets.limits import limit_process, limited_parser
from core.datasets.read import parse_lines
from core.datasets.row_errors import RowError
from core.datasets.summary import MAX_LISTED_COLUMNS, Summary
from core.spec.dataset import DatasetFormat, DatasetReport, LineError

MAX_LISTED_ERRORS = 50


def check(
    path: Path, columns: Mapping[str, str] = {}, *, timeout_seconds: float = math.inf
) -> DatasetReport:
    """Read every line once, with a mapping of columns, and report valid rows and errors.

    The first `MAX_LISTED_ERRORS` errors are listed and all are counted, up to
    `core.datasets.row_errors.MAX_ERRORS_PER_ROW` per row. If `columns` names a column that no row
    has, only that error is reported. Memory does not grow with the file. Exceeding the time or
    memory limit ends the check with a final error.
    """
    deadline = monotonic() + timeout_seconds
    format_: DatasetFormat | None = None
    summary = Summary()
    errors: list[LineError] = []
    fault_count = 0
    number = 0
    stopped = ""
    try:
        for line in parse_lines(path, columns):
            if monotonic() > deadline:
                stopped = "the check took too long and stopped here; split the file"
                break
            number, format_ = line.number, line.file_format
            found = line.errors
            summary.see(line.row or (), line.unused)
            if line.example is not None:
                found = summary.add(number, line.example)
            fault_count += len(found)
            room = MAX_LISTED_ERRORS - len(errors)
            errors += [at_line(number, error) for error in found[:room]]
    except MemoryError:
        stopped = "the check ran out of memory and stopped here; shorten the row"
    if not stopped and (wrong := _column_errors(columns, summary.column_names)):
        errors, fault_count = wrong, len(wrong)
    if stopped:
        fault_count += 1
        errors = [*errors[: MAX_LISTED_ERRORS - 1], at_line(number + 1, RowError(None, stopped))]
    report = summary.report(format_, tuple(errors), fault_count)
    return report.model_copy(update={"columns": dict(columns)})


def _column_errors(columns: Mapping[str, str], names: Collection[str]) -> list[LineError]:
    """Return an error for each mapped column that is missing, if all column names are known."""
    if not 0 < len(names) < MAX_LISTED_COLUMNS:
        return []
    return [
        at_line(1, RowError(f"columns.{key}", f"columns.{key}: {why}"))
        for key, why in missing_columns(columns, names).items()
    ]


def at_line(line: int, error: RowError) -> LineError:
    """Return an error of a line for a report."""
    return LineError(line=line, field=error.field, message=error.message)


def main() -> None:
    """Check the file named on the command line and print the report as one line of JSON."""
    parser = limited_parser()
    parser.add_argument("--columns", type=json.loads, default={})
    arguments = parser.parse_args()
    limit_process(arguments)
    report = check(arguments.path, arguments.columns, timeout_seconds=arguments.seconds)
    print(report.model_dump_json())


if __name__ == "__main__":
    main()
