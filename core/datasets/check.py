"""Checking a whole dataset file in one pass; `python -m core.datasets.check` is the child.

The child limits itself: `--memory-bytes` by RLIMIT_AS, `--seconds` of processor time and of
wall time by signals, which end the check at the line it has reached.
"""

import argparse
import resource
import signal
from pathlib import Path
from types import FrameType

from core.datasets.faults import RowFault
from core.datasets.formats import detect_format
from core.datasets.lines import read_lines
from core.datasets.read import parse_line
from core.spec.dataset import DatasetReport, LineFault
from core.spec.run import DatasetFormat

MAX_LISTED_FAULTS = 50


class OutOfTime(Exception):
    """The check has used up its time."""


def check(path: Path) -> DatasetReport:
    """Read every line once and report its faults.

    The first `MAX_LISTED_FAULTS` are listed and all are counted, at most
    `core.datasets.faults.MAX_FAULTS_PER_ROW` of one row. Memory does not grow with the file.
    """
    format_: DatasetFormat | None = None
    rows = 0
    faults: list[LineFault] = []
    fault_count = 0
    number = 0
    try:
        for line in read_lines(path):
            number = line.number
            if format_ is None and line.row is not None:
                format_ = detect_format(line.row)
            example = parse_line(line, format_)
            if not isinstance(example, tuple):
                rows += 1
                continue
            fault_count += len(example)
            room = MAX_LISTED_FAULTS - len(faults)
            faults += [_at(line.number, fault) for fault in example[:room]]
    except OutOfTime:
        late = RowFault(None, "checking took too long and stopped here; split the file")
        fault_count += 1
        faults = [*faults[: MAX_LISTED_FAULTS - 1], _at(number + 1, late)]
    return DatasetReport(format=format_, rows=rows, faults=tuple(faults), fault_count=fault_count)


def _at(line: int, fault: RowFault) -> LineFault:
    return LineFault(line=line, field=fault.field, message=fault.message)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise OutOfTime


def main() -> None:
    """Print the report of the file named on the command line as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    arguments = parser.parse_args()

    seconds = arguments.seconds
    signal.signal(signal.SIGXCPU, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (arguments.memory_bytes, arguments.memory_bytes))
    print(check(arguments.path).model_dump_json())


if __name__ == "__main__":
    main()
