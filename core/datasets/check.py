"""Checking a whole dataset file in one pass; `python -m core.datasets.check` is the child.

The child limits itself, in memory, time and processor time; `bounded.py` starts it.
"""

import argparse
import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from core.datasets.columns import missing_columns
from core.datasets.faults import RowFault
from core.datasets.read import parse_lines
from core.datasets.summary import MAX_LISTED_COLUMNS, Summary
from core.spec.dataset import DatasetFormat, DatasetReport, LineFault

MAX_LISTED_FAULTS = 50
_MAPPED_BYTES = 512 << 20


def check(
    path: Path, columns: Mapping[str, str] = {}, *, timeout_seconds: float = math.inf
) -> DatasetReport:
    """Read every line once, with a mapping of columns, and report on the good rows and the faults.

    A mapping that names a column that no row has is the only fault of the file.
    The first `MAX_LISTED_FAULTS` are listed and all are counted, at most
    `core.datasets.faults.MAX_FAULTS_PER_ROW` of one row. Memory does not grow with the file.
    Running out of time or memory ends the check and is the last fault.
    """
    deadline = monotonic() + timeout_seconds
    format_: DatasetFormat | None = None
    summary = Summary()
    faults: list[LineFault] = []
    fault_count = 0
    number = 0
    stopped = ""
    try:
        for line in parse_lines(path, columns):
            if monotonic() > deadline:
                stopped = "checking took too long and stopped here; split the file"
                break
            number, format_ = line.number, line.file_format
            found = line.faults
            summary.see(line.row or (), line.unused)
            if line.example is not None:
                found = summary.add(number, line.example)
            fault_count += len(found)
            room = MAX_LISTED_FAULTS - len(faults)
            faults += [_at(number, fault) for fault in found[:room]]
    except MemoryError:
        stopped = "checking needed too much memory and stopped here; shorten the row"
    missing = missing_columns(columns, summary.column_names) if summary.column_names else {}
    if missing and len(summary.column_names) < MAX_LISTED_COLUMNS and not stopped:
        wrong = [RowFault(f"columns.{key}", f"columns.{key} {why}") for key, why in missing.items()]
        faults, fault_count = [_at(1, fault) for fault in wrong], len(wrong)
    if stopped:
        fault_count += 1
        faults = [*faults[: MAX_LISTED_FAULTS - 1], _at(number + 1, RowFault(None, stopped))]
    report = summary.report(format_, tuple(faults), fault_count)
    return report.model_copy(update={"columns": dict(columns)})


def _at(line: int, fault: RowFault) -> LineFault:
    return LineFault(line=line, field=fault.field, message=fault.message)


def main() -> None:
    """Print the report of the file named on the command line as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--columns", type=json.loads, default={})
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()

    # The deadline is looked at after each line; the processor time ends even an endless one.
    cpu_seconds = math.ceil(arguments.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    # What the process may fill; address space besides, for libraries that are only mapped.
    address_space = arguments.memory_bytes + _MAPPED_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_bytes, arguments.memory_bytes))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    report = check(arguments.path, arguments.columns, timeout_seconds=arguments.seconds)
    print(report.model_dump_json())


if __name__ == "__main__":
    main()
